"""Trees worked by hand: the numbers in the comments are the specification."""

import asyncio
import math

import pytest

from o1_reason import (
    DVTS,
    MCTS,
    BeamSearch,
    BestOfN,
    Budget,
    ChainOfThought,
    DepthFirst,
    Proposals,
    Score,
    SelfConsistency,
    Step,
    Tree,
    search,
)
from o1_reason.strategies import mcts
from o1_reason.strategies.sequential_halving import considered_visits
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

ONE_AT_A_TIME = Budget(concurrency=1)


def expand(tree, at, *steps):
    """Expand node `at` into `steps` as (text, reward, logprob); returns the new ids."""
    node = tree.nodes[at]
    tree.order(node, len(steps))
    ids = []
    for text, reward, logprob in steps:
        child, _ = tree.add(at, Step(text, logprob=logprob))
        child.reward = reward
        ids.append(child.id)
    tree.returned(node, len(steps))
    tree.settled(node)
    return ids


def visited(tree, i, visits, value):
    tree.nodes[i].visits, tree.nodes[i].value = visits, value


# PUCT.  P = (.5, .3, .2): the log-probabilities are ln P - 1, the softmax takes the 1 out again.
#
#        N   V   r    P    N(s) = 9, c = 1: sqrt 9 = 3
#   a    4  .5   -   .5    .5 + .5 * 3 / 5 = .8
#   b    3  .6   -   .3    .6 + .3 * 3 / 4 = .825
#   c    0   -  .4   .2    .4 + .2 * 3 / 1 = 1.0       first play: the process reward


def puct_tree():
    tree = Tree("q")
    a, b, c = expand(
        tree, 0, ("a", 0.9, math.log(0.5) - 1), ("b", 0.9, math.log(0.3) - 1), ("c", 0.4, math.log(0.2) - 1)
    )
    visited(tree, 0, 9, 0.5)
    visited(tree, a, 4, 0.5)
    visited(tree, b, 3, 0.6)
    return tree, a, b, c


def assert_puct_score(tree, child, score, c_puct=1.0):
    """The score lies between those of two probes, siblings of prior 0, whose scores are their values."""
    probe = expand(tree, 0, ("probe", 0.0, -1e9))[0]
    for value, chosen in ((score - 1e-6, child), (score + 1e-6, probe)):
        visited(tree, probe, 1, value)
        assert mcts.puct(tree, tree.nodes[0], [child, probe], c_puct, {}) == chosen


@pytest.mark.parametrize(("child", "score"), [(1, 0.8), (2, 0.825), (3, 1.0)])
def test_puct_scores(child, score):
    assert_puct_score(puct_tree()[0], child, score)


def test_puct_exploration_grows_with_c():
    # a, c = 2:  .5 + 2 * .5 * 3 / 5 = 1.1
    assert_puct_score(puct_tree()[0], 1, 1.1, c_puct=2.0)


def test_an_expansion_in_flight_counts_as_a_visit_worth_nothing():
    tree, _, b, c = puct_tree()
    visited(tree, 0, 8, 0.5)
    expand(tree, b, ("b1", 0.5, None))
    b1 = tree.nodes[b].children[0]
    tree.order(tree.nodes[b1], 1)  # now N(s) = 8 + 1 in flight = 9
    # b: (.6 * 3 + 0) / 4 + .3 * 3 / (1 + 4) = .45 + .18 = .63
    assert_puct_score(tree, b, 0.63)
    # c as before: .4 + .2 * 3 = 1.0
    assert_puct_score(tree, c, 1.0)


def test_a_first_visit_in_flight_takes_first_play_away():
    tree, _, _, c = puct_tree()
    visited(tree, 0, 8, 0.5)
    tree.order(tree.nodes[c], 1)
    # c: 0 / 1 + .2 * 3 / (1 + 1) = .3
    assert_puct_score(tree, c, 0.3)


def test_without_log_probabilities_the_prior_is_uniform():
    tree = Tree("q")
    a, b = expand(tree, 0, ("a", 0.5, None), ("b", 0.5, None))
    visited(tree, 0, 4, 0.5)
    assert mcts.log_priors(tree, [a, b]) == pytest.approx({a: math.log(0.5), b: math.log(0.5)})
    # a: .5 + .5 * 2 / 1 = 1.5
    assert mcts.puct(tree, tree.nodes[0], [a, b], 1.0, {}) == a  # the older of equals


def test_one_select_spreads_over_the_tree_by_virtual_loss():
    tree, a, b, _ = puct_tree()
    expand(tree, a, ("a1", 0.5, None))
    expand(tree, b, ("b1", 0.5, None), ("b2", 0.4, None))
    # 1st  a .8, b .825, c 1.0                                              -> c
    # 2nd  c is taken; sqrt 10 = 3.162: a .816, b .6 + .3 * 3.162 / 4 = .837 -> b, its better child b1
    # 3rd  sqrt 11 = 3.317: a .5 + .5 * 3.317 / 5 = .832, b .45 + .3 * 3.317 / 5 = .649 -> a
    #      (without virtual loss b again: .6 + .3 * 3.317 / 4 = .849)
    chosen = MCTS(root="puct", c_puct=1.0, branch=3).select(tree, 3)
    assert [(tree.nodes[e.node].step.text, e.n) for e in chosen] == [("c", 3), ("b1", 3), ("a1", 3)]


async def test_mcts_backs_up_the_best_child_reward_as_a_mean():
    policy = ScriptedPolicy({(): ["a", "b"], ("a",): ["= 7", "a2"]})
    verifier = ScriptedVerifier({"a": 0.6, "b": 0.4, "= 7": 0.2, "a2": 0.9})
    strategy = MCTS(simulations=2, branch=2, root_branch=2, root="puct", c_puct=1.0)
    result = await search("q", policy, verifier, strategy, ONE_AT_A_TIME)
    # root expanded: best child .6                              root N 1, V .6
    # 1st  a .6 + .5 * 1 / 1 = 1.1, b .9  -> a brings .2, .9:   a N 1, V .9      root N 2, V (.6 + .9) / 2 = .75
    # 2nd  sqrt 2 = 1.414: a .9 + .5 * 1.414 / 2 = 1.254, b .4 + .707 = 1.107 -> a, and in it a2, as 7 is finished:
    #      a2 brings nothing, worth 0:  a2 N 1, V 0   a N 2, V .45   root N 3, V 1.5 / 3 = .5
    assert [path for path, _, _ in policy.calls] == [(), ("a",), ("a", "a2")]
    found = {n.step.text if n.step else "": (n.visits, pytest.approx(n.value)) for n in result.tree.nodes}
    assert found == {"": (3, 0.5), "a": (2, 0.45), "b": (0, 0.0), "= 7": (0, 0.0), "a2": (1, 0.0)}
    assert (result.answer, result.confidence, result.stop) == ("7", 0.2, "done")


# Sequential halving, worked from mctx's seq_halving: rounds = ceil(log2 m); a round of k actions gives each
# max(1, simulations // (rounds * k)) visits; then k = max(2, k // 2).


@pytest.mark.parametrize(
    ("actions", "simulations", "visits"),
    [
        (1, 4, [0, 1, 2, 3]),
        # 1 round; k 2: 5 // 2 = 2 visits each, and again
        (2, 5, [0, 0, 1, 1, 2]),
        # 2 rounds; k 4: 8 // 8 = 1; k 2: 8 // 4 = 2
        (4, 8, [0, 0, 0, 0, 1, 1, 2, 2]),
        # 2 rounds; k 3: 7 // 6 = 1; k max(2, 1): 7 // 4 = 1; again
        (3, 7, [0, 0, 0, 1, 1, 2, 2]),
        # 3 rounds; k 8: max(1, 16 // 24) = 1; k 4: 16 // 12 = 1; k 2: 16 // 6 = 2
        (8, 16, [0] * 8 + [1] * 4 + [2, 2, 3, 3]),
        (8, 6, [0] * 6),
        # 4 rounds; k 16: 64 // 64 = 1; k 8: 64 // 32 = 2; k 4: 64 // 16 = 4; k 2: 64 // 8 = 8
        (16, 64, [0] * 16 + [1] * 8 + [2] * 8 + [v for v in (3, 4, 5, 6) for _ in range(4)]
            + [v for v in range(7, 15) for _ in range(2)]),
    ],
)  # fmt: skip
def test_sequential_halving_table(actions, simulations, visits):
    assert list(considered_visits(actions, simulations)) == visits


# The Gumbel root: g + log P + (50 + max N) Q.


def gumbel_tree(monkeypatch, *actions):
    """Root actions as (text, gumbel, logprob, Q, visits), each with a leaf below if it was visited."""
    tree = Tree("q")
    noise = {text: g for text, g, _, _, _ in actions}
    monkeypatch.setattr(mcts, "gumbel", lambda tree, i: noise[tree.nodes[i].step.text])
    ids = expand(tree, 0, *((text, q, logprob) for text, _, logprob, q, _ in actions))
    visited(tree, 0, 1 + sum(visits for *_, visits in actions), 0.5)
    for i, (text, _, _, q, visits) in zip(ids, actions, strict=True):
        if visits:
            visited(tree, i, visits, q)
            expand(tree, i, (text + "1", 0.5, None))
    return tree


def chosen_actions(tree, considered, simulations, room=1):
    strategy = MCTS(simulations=simulations, considered=considered)
    return [tree.nodes[tree.path(e.node)[1]].step.text for e in strategy.select(tree, room)]


def test_gumbel_considers_the_best_of_all_actions_first(monkeypatch):
    # max N = 0:  A 0 + 50 * .5 = 25;  B .5 + 24 = 24.5;  C 1 + 24.5 = 25.5;  D .2 + 25 = 25.2  (log P equal)
    tree = gumbel_tree(
        monkeypatch,
        ("A", 0.0, None, 0.5, 0),
        ("B", 0.5, None, 0.48, 0),
        ("C", 1.0, None, 0.49, 0),
        ("D", 0.2, None, 0.5, 0),
    )
    # 2 of 4 considered in 8 simulations, visits 0 0 1 1 2 2 3 3: the first two go to C and D
    assert chosen_actions(tree, 2, 8, room=2) == ["C", "D"]


def test_gumbel_waits_for_an_action_in_flight_instead_of_trying_one_that_is_not_considered(monkeypatch):
    tree = gumbel_tree(
        monkeypatch,
        ("A", 0.0, None, 0.5, 0),
        ("B", 0.5, None, 0.48, 0),
        ("C", 1.0, None, 0.49, 0),
        ("D", 0.2, None, 0.5, 0),
    )
    assert chosen_actions(tree, 2, 8, room=4) == ["C", "D"]  # the third turn is C's or D's again


def test_few_simulations_consider_few_actions(monkeypatch):
    tree = gumbel_tree(monkeypatch, *((name, 0.0, None, 0.5, 0) for name in "ABCDEFGH"))
    assert len(chosen_actions(tree, 16, 12, room=8)) == 3  # a quarter of 12


def test_gumbel_compares_the_considered_ones_again_by_their_new_values(monkeypatch):
    # max N = 1:  C 1 + 51 * .3 = 16.3;  D .2 + 51 * .3158 = 16.3058   (with 50 in place of 51: C 16 > D 15.99)
    tree = gumbel_tree(
        monkeypatch,
        ("A", 0.0, None, 0.5, 0),
        ("B", 0.5, None, 0.48, 0),
        ("C", 1.0, None, 0.3, 1),
        ("D", 0.2, None, 0.3158, 1),
    )
    assert chosen_actions(tree, 2, 8) == ["D"]  # A, 25.5 by now, is out: the table calls for one visit


def test_gumbel_adds_the_log_prior(monkeypatch):
    # log P differs by .4, the noise by .3 the other way, Q is equal
    tree = gumbel_tree(monkeypatch, ("A", 0.3, -1.0, 0.5, 0), ("B", 0.0, -0.6, 0.5, 0))
    assert chosen_actions(tree, 2, 8) == ["B"]


def test_gumbel_noise_is_a_function_of_seed_and_step_with_the_right_spread():
    tree = Tree("q", seed=3)
    ids = expand(tree, 0, *((str(i), 0.5, None) for i in range(2000)))
    noise = [mcts.gumbel(tree, i) for i in ids]
    assert noise == [mcts.gumbel(tree, i) for i in ids]
    mean = sum(noise) / 2000  # Gumbel(0): mean .5772, variance pi^2 / 6 = 1.645
    assert mean == pytest.approx(0.5772, abs=0.1)
    assert sum((g - mean) ** 2 for g in noise) / 2000 == pytest.approx(1.645, abs=0.25)


# Votes and aggregates.

BALLOTS = {  # text: answer, score
    "u": ("1", 0.5), "v": ("1", 0.5), "w": ("2", 0.9), "x": ("3", 0.2), "y": ("3", 0.2), "z": ("3", 0.2)
}  # fmt: skip


@pytest.mark.parametrize(
    ("vote", "answer", "confidence", "ranking"),
    [
        ("none", "2", 0.9, [("2", 0.9), ("1", 0.5), ("3", 0.2)]),  # best path
        ("majority", "3", 3 / 6, [("3", 3 / 6), ("1", 2 / 6), ("2", 1 / 6)]),  # 3, 2, 1 of 6 votes
        ("weighted", "1", 0.4, [("1", 0.4), ("2", 0.36), ("3", 0.24)]),  # 1.0, .9, .6 of 2.5
    ],
)
async def test_votes_of_best_of_n(vote, answer, confidence, ranking):
    policy = ScriptedPolicy({(): [Step(text, True, answer) for text, (answer, _) in BALLOTS.items()]})
    verifier = ScriptedVerifier({text: score for text, (_, score) in BALLOTS.items()})
    result = await search("q", policy, verifier, BestOfN(6, vote=vote))
    assert (result.answer, result.confidence) == (answer, pytest.approx(confidence))
    assert [key for key, _ in result.ranking] == [key for key, _ in ranking]
    assert [worth for _, worth in result.ranking] == pytest.approx([worth for _, worth in ranking])


async def test_an_equal_trajectory_votes_again():
    policy = ScriptedPolicy({(): ["= 1", "= 2", "= 2", "= 2"]})
    result = await search("q", policy, ScriptedVerifier({"= 1": 0.9, "= 2": 0.4}), BestOfN(4, vote="weighted"))
    assert result.ranking == (("2", pytest.approx(1.2 / 2.1)), ("1", pytest.approx(0.9 / 2.1)))  # 3 * .4 against .9


class StepVerifier:
    """A process reward model: one reward per step, by its text."""

    def __init__(self, values):
        self.values = values

    async def score(self, states):
        return [Score(tuple(self.values[step.text] for step in state.steps)) for state in states]


PATHS = {  # rewards by step; the answer names the path
    "A": (0.9, 0.5, 0.8),  # last .8   min .5   prod .36    mean .7333
    "B": (0.6, 0.7, 0.7),  # last .7   min .6   prod .294   mean .6667
    "C": (1.0, 0.9, 0.4),  # last .4   min .4   prod .36    mean .7667
    "D": (0.8, 0.8, 0.59),  # last .59  min .59  prod .3776  mean .73
}
EXPECTED = {
    "last": {"A": 0.8, "B": 0.7, "C": 0.4, "D": 0.59},
    "min": {"A": 0.5, "B": 0.6, "C": 0.4, "D": 0.59},
    "prod": {"A": 0.36, "B": 0.294, "C": 0.36, "D": 0.3776},
    "mean": {"A": 2.2 / 3, "B": 2 / 3, "C": 2.3 / 3, "D": 2.19 / 3},
}
WINNER = {"last": "A", "min": "B", "prod": "D", "mean": "C"}


def steps_of(name):
    return (Step(name + "0"), Step(name + "1"), Step(name + "2", True, name))


@pytest.mark.parametrize("aggregate", WINNER)
async def test_aggregates_of_whole_trajectories(aggregate):
    policy = ScriptedPolicy({(): [steps_of(name) for name in PATHS]})
    verifier = StepVerifier({f"{name}{i}": r for name, rewards in PATHS.items() for i, r in enumerate(rewards)})
    result = await search("q", policy, verifier, BestOfN(4, aggregate=aggregate))
    values = {n.step.answer: pytest.approx(n.value) for n in result.tree.nodes if n.terminal}
    assert values == EXPECTED[aggregate]
    assert result.answer == WINNER[aggregate]
    assert result.confidence == pytest.approx(EXPECTED[aggregate][result.answer])


@pytest.mark.parametrize("aggregate", WINNER)
async def test_aggregates_of_a_beam(aggregate):
    script = {(): [name + "0" for name in PATHS]}
    for name in PATHS:
        first, second, last = steps_of(name)
        script |= {(first.text,): [second], (first.text, second.text): [last]}
    verifier = ScriptedVerifier({f"{name}{i}": r for name, rewards in PATHS.items() for i, r in enumerate(rewards)})
    result = await search("q", ScriptedPolicy(script), verifier, BeamSearch(4, 1, aggregate=aggregate))
    values = {n.step.answer: pytest.approx(n.value) for n in result.tree.nodes if n.terminal}
    assert result.answer == WINNER[aggregate]
    assert values.items() <= EXPECTED[aggregate].items()


# Beam, depth first, DVTS.


async def test_beam_keeps_the_best_of_each_level_and_the_older_of_equals():
    script = {
        (): ["a", "b", "c", "d"],  # .5 .9 .5 .1: b and, the older of equals, a are kept
        ("b",): ["b1", "b2"],  # .2 .6
        ("a",): ["a1", "= 1"],  # .6 .7: 1 and, created before a1, b2 are kept
        ("b", "b2"): ["= 2"],  # .8: the answer
    }
    policy = ScriptedPolicy(script)
    verifier = ScriptedVerifier(
        {"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.1, "b1": 0.2, "b2": 0.6, "a1": 0.6, "= 1": 0.7, "= 2": 0.8}
    )
    result = await search("q", policy, verifier, BeamSearch(2, 2), ONE_AT_A_TIME)
    assert policy.calls == [((), 4, 1), (("b",), 2, 1), (("a",), 2, 1), (("b", "b2"), 2, 1)]
    assert (result.answer, result.confidence) == ("2", 0.8)
    assert result.ranking == (("2", 0.8), ("1", 0.7))


async def test_a_dead_end_gives_its_place_in_the_beam_to_the_next_best():
    policy = ScriptedPolicy({(): ["a", "b"], ("b",): ["= 1"]})
    result = await search("q", policy, ScriptedVerifier({"a": 0.9, "b": 0.1}), BeamSearch(1, 2), ONE_AT_A_TIME)
    assert [path for path, _, _ in policy.calls] == [(), ("a",), ("b",)]
    assert result.answer == "1"


@pytest.mark.parametrize(
    ("aggregate", "calls"),
    [("last", [(), ("a",)]), ("mean", [(), ("a",)]), ("min", [()]), ("prod", [()])],
)
async def test_an_aggregate_that_can_only_fall_ends_a_beam_once_no_open_path_can_win(aggregate, calls):
    # 1 is worth .8; a is worth .8 too and under min and prod never more again, under last and mean perhaps
    policy = ScriptedPolicy({(): ["= 1", "a"], ("a",): ["= 2"]})
    verifier = ScriptedVerifier({"= 1": 0.8, "a": 0.8, "= 2": 0.9})
    result = await search("q", policy, verifier, BeamSearch(2, 1, aggregate=aggregate))
    assert [path for path, _, _ in policy.calls] == calls
    assert result.answer == ("2" if len(calls) == 2 else "1")


async def test_depth_first_prunes_below_the_threshold_and_backtracks():
    script = {
        (): ["a", "b"],  # .6 .8 -> b
        ("b",): ["b1", "b2"],  # .49 .3: both below .5 -> back to a
        ("a",): ["a1", "= 5"],  # .5 is not below; 5 is kept as an answer (.7 < .9)
        ("a", "a1"): ["a11", "= 6"],  # 6 is accepted
    }
    policy = ScriptedPolicy(script)
    verifier = ScriptedVerifier(
        {"a": 0.6, "b": 0.8, "b1": 0.49, "b2": 0.3, "a1": 0.5, "= 5": 0.7, "a11": 0.6, "= 6": 0.9}
    )
    seen = []
    result = await search("q", policy, verifier, DepthFirst(2, 0.5), on_event=seen.append)
    assert [path for path, _, _ in policy.calls] == [(), ("b",), ("a",), ("a", "a1")]
    # ids by creation: a 1, b 2, b1 3, b2 4, a1 5, ...: one jump, from b to a
    assert [(e["from"], e["node"]) for e in seen if e["event"] == "backtracked"] == [(2, 1)]
    assert (result.answer, result.confidence, result.stop) == ("6", 0.9, "done")


async def test_depth_first_without_an_accepted_answer_gives_the_best_of_all():
    policy = ScriptedPolicy({(): ["a", "b"], ("a",): ["= 1", "= 2"], ("b",): ["= 3"]})
    verifier = ScriptedVerifier({"a": 0.9, "b": 0.6, "= 1": 0.2, "= 2": 0.5, "= 3": 0.6})
    result = await search("q", policy, verifier, DepthFirst(2, 0.5))
    assert [path for path, _, _ in policy.calls] == [(), ("a",), ("b",)]
    assert result.answer == "3"


async def test_dvts_groups_by_age_and_never_compares_groups():
    script = {
        (): ["a", "b", "c", "d"],  # groups (a .9, b .8) -> a and (c .1, d .3) -> d; a beam would take a and b
        ("a",): ["a1", "= 1"],  # .2 .6 -> finished with 1
        ("d",): ["d1", "d2"],  # .5 .4 -> d1
        ("d", "d1"): ["= 2", "d12"],  # .7 .1 -> finished with 2
    }
    policy = ScriptedPolicy(script)
    verifier = ScriptedVerifier(
        {"a": 0.9, "b": 0.8, "c": 0.1, "d": 0.3, "a1": 0.2, "= 1": 0.6, "d1": 0.5, "d2": 0.4, "= 2": 0.7, "d12": 0.1}
    )
    result = await search("q", policy, verifier, DVTS(4, 2), ONE_AT_A_TIME)
    assert sorted(policy.calls) == [((), 4, 1), (("a",), 2, 1), (("d",), 2, 1), (("d", "d1"), 2, 1)]
    assert result.ranking == (("2", 0.7), ("1", 0.6))


async def test_chain_of_thought_is_greedy_and_follows_one_path():
    class Asked(ScriptedPolicy):
        async def propose(self, state, n, max_steps=1, *, temperature=None):
            assert (n, temperature) == (1, 0.0)
            return await super().propose(state, n, 1)  # one step at a time, whatever is asked for

    policy = Asked({(): ["a", "b"], ("a",): ["= 1"]})
    result = await search("q", policy, None, ChainOfThought())
    assert (result.text, result.answer, len(result.tree)) == ("a\n= 1", "1", 3)


# Self-consistency: decided exactly when L > S + R.


def tally(n_finished_by_answer):
    tree = Tree("q")
    node = tree.nodes[0]
    for answer, votes in n_finished_by_answer.items():
        for _ in range(votes):
            tree.order(node, 1)
            tree.add(0, Step(answer, True, answer))
            tree.returned(node, 1)
            tree.settled(node)
    return tree


@pytest.mark.parametrize(
    ("votes", "n", "decided"),
    [
        ({"x": 2}, 4, False),  # 2 > 0 + 2 is false: two further votes could tie
        ({"x": 3}, 5, True),  # 3 > 0 + 2
        ({"x": 2, "y": 1}, 4, False),  # 2 > 1 + 1 is false
        ({"x": 3, "y": 1}, 5, True),  # 3 > 1 + 1
        ({"x": 3, "y": 1, "z": 1}, 6, True),  # 3 > 1 + 1: S is the second alone
        ({"x": 1}, 1, True),
    ],
)
def test_the_vote_is_decided_when_the_rest_cannot_change_it(votes, n, decided):
    assert SelfConsistency(n).done(tally(votes)) is decided


@pytest.mark.parametrize(
    ("ballots", "calls"),
    [
        ("xxxxx", 3),  # 3 > 0 + 2
        ("xxyxx", 4),  # after 3: 2 > 1 + 2 is false; after 4: 3 > 1 + 1
        ("xyxyx", 5),  # after 4: 2 > 2 + 1 is false
        ("xyzxx", 5),  # after 4: 2 > 1 + 1 is false
    ],
)
async def test_self_consistency_orders_no_more_than_decides(ballots, calls):
    policy = ScriptedPolicy({(): [f"= {ballot}" for ballot in ballots]}, samples_per_call=1)
    result = await search("q", policy, None, SelfConsistency(5))
    assert len(policy.calls) == calls
    assert (result.answer, result.confidence) == ("x", ballots[:calls].count("x") / calls)


async def test_a_decided_vote_cancels_what_is_in_flight():
    class AllAtOnce(SelfConsistency):
        def select(self, tree, room):
            return [] if tree.last is not None else BestOfN(self.n).select(tree, room)

    class TwoNeverAnswer:
        samples_per_call = 1
        started = cancelled = 0

        async def propose(self, state, n, max_steps=1, *, temperature=None):
            self.started += 1
            if self.started > 3:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            return Proposals(((Step("= x", True, "x"),),))

    policy = TwoNeverAnswer()
    result = await asyncio.wait_for(search("q", policy, None, AllAtOnce(5)), 5)
    assert (result.answer, result.stop) == ("x", "done")
    assert (policy.started, policy.cancelled) == (5, 2)
