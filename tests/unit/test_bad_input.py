import asyncio

import numpy as np
import pytest

from o1_reason import (
    DVTS,
    MCTS,
    BeamSearch,
    BestOfN,
    Budget,
    ChainOfThought,
    ConfigurationError,
    DepthFirst,
    Expansion,
    O1ReasonError,
    PolicyError,
    Proposals,
    Score,
    SelfConsistency,
    Step,
    StrategyError,
    VerifierError,
    search,
)
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

ANSWER = (Step("= 1", True, "1"),)
GOOD = ScriptedVerifier({}, 0.5)


class Policy:
    """Gives `outcome` at the path that ends with `at` (None: at the root), and a script's proposals elsewhere."""

    def __init__(self, outcome, at=None):
        self.outcome, self.at = outcome, at
        self.script = ScriptedPolicy({(): ["a", "b"], ("a",): ["= 1"], ("b",): ["= 2"]})

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        if (state.steps[-1].text if state.steps else None) != self.at:
            return await self.script.propose(state, n, max_steps)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Verifier:
    """Gives `scores` for the path that ends with `at` (None: always), 0.5 elsewhere."""

    def __init__(self, scores, at=None):
        self.scores, self.at = scores, at

    async def score(self, states):
        if self.at is not None and all(state.steps[-1].text != self.at for state in states):
            return [Score((0.5,)) for _ in states]
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


@pytest.mark.parametrize("question", ["", "  \n", None, 24])
async def test_an_empty_question_is_refused(question):
    policy = ScriptedPolicy({})
    with pytest.raises(ConfigurationError, match="the question is empty"):
        await search(question, policy)
    assert not policy.calls


@pytest.mark.parametrize(
    "options", [{"strategy": "dream"}, {"policy": "nowhere:model"}, {"verifier": "nowhere"}, {"ledger": 3.5}]
)
async def test_what_names_nothing_is_refused(options):
    with pytest.raises(ConfigurationError) as refusal:
        await search("q", **{"policy": ScriptedPolicy({}), **options})
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (BeamSearch, {"width": 0}),
        (BeamSearch, {"branch": -1}),
        (BeamSearch, {"max_depth": 2.5}),
        (BeamSearch, {"aggregate": "best"}),
        (BestOfN, {"n": True}),
        (BestOfN, {"vote": "some"}),
        (SelfConsistency, {"n": 0}),
        (ChainOfThought, {"max_depth": 0}),
        (DepthFirst, {"threshold": 1.5}),
        (DepthFirst, {"accept": float("nan")}),
        (DVTS, {"n": 10, "branch": 4}),
        (MCTS, {"simulations": -1}),
        (MCTS, {"c_puct": float("nan")}),
        (MCTS, {"root": "ucb"}),
        (MCTS, {"root_branch": 0}),
    ],
)
def test_an_impossible_setting_is_refused_by_name(strategy, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        strategy(**options)


BAD_PROPOSALS = {
    "wrong type": (["a"], "must return Proposals; got list"),
    "nothing": (None, "must return Proposals; got NoneType"),
    "more than n": (Proposals((ANSWER,) * 99), "candidates, got 99"),
    "an empty candidate": (Proposals(((),)), "steps; got 0"),
    "too many steps": (Proposals(((Step("x"), Step("y")),)), "1 to 1 steps; got 2"),
    "a step that is text": (Proposals((("text",),)), "must be a Step"),
    "a step without text": (Proposals(((Step(""),),)), "must be a Step with text"),
    "a step of another type of text": (Proposals(((Step(7),),)), "must be a Step with text"),
    "an exception": (OSError("network down"), "the policy failed: OSError: network down"),
}


@pytest.mark.parametrize(("outcome", "why"), BAD_PROPOSALS.values(), ids=BAD_PROPOSALS)
async def test_a_policy_that_only_breaks_its_contract_is_an_error_that_names_it(outcome, why):
    with pytest.raises(PolicyError, match=why):
        await search("q", Policy(outcome), None, "beam")


@pytest.mark.parametrize("strategy", ["beam", "mcts", "dvts", DepthFirst(threshold=0)])
@pytest.mark.parametrize(("outcome", "why"), BAD_PROPOSALS.values(), ids=BAD_PROPOSALS)
async def test_a_policy_that_fails_somewhere_makes_a_dead_end_and_the_search_goes_on(outcome, why, strategy):
    result = await search("q", Policy(outcome, at="a"), None, strategy)
    assert result.answer == "2"
    a, b = result.tree.nodes[1:3]
    assert why in a.dead
    assert b.dead is None


async def test_steps_after_a_terminal_one_break_the_contract():
    candidate = (Step("= 1", True, "1"), Step("and more"))
    with pytest.raises(PolicyError, match="nothing may follow a terminal step; '= 1'"):
        await search("q", Policy(Proposals((candidate,))), None, "best_of_n")


async def test_the_cause_of_a_failure_is_kept():
    with pytest.raises(PolicyError) as failure:
        await search("q", Policy(OSError("network down")), None, "beam")
    assert isinstance(failure.value.__cause__, OSError)


@pytest.mark.parametrize("strategy", ["cot", "best_of_n", "beam", "dfs", "dvts", "mcts"])
async def test_a_policy_without_proposals_exhausts_the_search(strategy):
    result = await search("q", Policy(Proposals(())), GOOD, strategy)
    assert (result.stop, result.answer, result.node) == ("exhausted", None, None)
    assert result.tree.nodes[0].dead == "no proposals"


class Endless:
    async def propose(self, state, n, max_steps=1, *, temperature=None):
        return Proposals(tuple((Step(f"{len(state.steps)} {i}"),) for i in range(min(n, 2))))


@pytest.mark.parametrize(
    "strategy",
    [
        ChainOfThought(max_depth=4),
        SelfConsistency(n=3, max_depth=4),
        BestOfN(n=3, max_depth=4),
        BeamSearch(max_depth=4),
        DepthFirst(threshold=0, max_depth=4),
        DVTS(n=4, branch=2, max_depth=4),
        MCTS(simulations=20, max_depth=4),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
async def test_a_policy_that_never_finishes_ends_at_the_maximum_depth(strategy):
    result = await search("q", Endless(), GOOD, strategy)
    assert (result.stop, result.answer) == ("exhausted", None)
    assert max(node.depth for node in result.tree.nodes) == 4
    assert {node.dead for node in result.tree.nodes if node.depth == 4} == {"maximum depth"}


class Hanging(Policy):
    async def propose(self, state, n, max_steps=1, *, temperature=None):
        if (state.steps[-1].text if state.steps else None) == self.at:
            await asyncio.sleep(60)
        return await super().propose(state, n, max_steps)


async def test_a_call_that_never_returns_is_a_dead_end_after_call_seconds():
    budget = Budget(call_seconds=0.05)
    result = await search("q", Hanging(None, at="a"), None, "beam", budget)
    assert (result.stop, result.answer) == ("done", "2")
    assert "no answer within 0.05 seconds" in result.tree.nodes[1].dead
    with pytest.raises(PolicyError, match=r"no answer within 0\.05 seconds"):
        await search("q", Hanging(None), None, "beam", budget)


async def test_a_verifier_that_never_returns_is_a_dead_end_after_call_seconds():
    class Silent:
        async def score(self, states):
            await asyncio.sleep(60)

    with pytest.raises(VerifierError, match=r"no answer within 0\.05 seconds"):
        await search("q", ScriptedPolicy({(): ["= 1"]}), Silent(), "beam", Budget(call_seconds=0.05))


@pytest.mark.parametrize(
    "reward",
    [float("nan"), float("inf"), -float("inf"), -0.001, 1.001, 2.0, None, "1", np.float64("nan")],
    ids=repr,
)
async def test_a_reward_outside_the_unit_interval_is_an_error(reward):
    with pytest.raises(VerifierError, match=r"a reward must be a number in \[0, 1\]"):
        await search("q", ScriptedPolicy({(): ["= 1"]}), Verifier([Score((reward,))]), "beam")


@pytest.mark.parametrize("reward", [0, 1, 0.5, np.float64(0.5)])
async def test_a_reward_on_the_unit_interval_is_kept_as_a_float(reward):
    result = await search("q", ScriptedPolicy({(): ["= 1"]}), Verifier([Score((reward,))]), "beam")
    assert type(result.tree.nodes[1].reward) is float
    assert result.confidence == reward


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([], "asked for the scores of 1 states, got 0"),
        ([Score((0.5,))] * 2, "asked for the scores of 1 states, got 2"),
        ([Score(())], "one reward per step, or one in all; got 0"),
        ([Score((0.5, 0.5))], "one reward per step, or one in all; got 2"),
        ([0.5], "must return Score objects; got float"),
        (None, "the verifier failed: TypeError"),
        (KeyError("x"), "the verifier failed: KeyError: 'x'"),
    ],
)
async def test_a_verifier_that_only_breaks_its_contract_is_an_error_that_names_it(scores, why):
    with pytest.raises(VerifierError, match=why):
        await search("q", ScriptedPolicy({(): ["= 1"]}), Verifier(scores), "beam")


@pytest.mark.parametrize("strategy", ["beam", "mcts", "dvts", "dfs", "best_of_n"])
@pytest.mark.parametrize("scores", [RuntimeError("cannot"), [Score((2.0,))], []], ids=["raises", "2.0", "too few"])
async def test_candidates_whose_scoring_fails_are_dead_ends_and_the_search_goes_on(scores, strategy):
    policy = ScriptedPolicy({(): ["= 1", "= 2"]}, samples_per_call=1)
    result = await search("q", policy, Verifier(scores, at="= 1"), strategy)
    assert result.answer == "2"
    assert [node.dead is not None for node in result.tree.nodes] == [False, True, False]
    assert result.ranking == (("2", 0.5),)


async def test_one_reward_per_step_scores_the_steps_of_a_longer_candidate():
    policy = ScriptedPolicy({(): [(Step("a"), Step("b"), *ANSWER)]})
    result = await search("q", policy, Verifier([Score((0.2, 0.4, 0.6))]), "best_of_n")
    assert [node.reward for node in result.tree.nodes] == [None, 0.2, 0.4, 0.6]


class Chooses:
    """A strategy that selects once, and answers, whatever it is told."""

    def __init__(self, expansion, answer=None):
        self.expansion, self.given = expansion, answer

    def select(self, tree, room):
        return [self.expansion]

    def backup(self, tree, new): ...

    def done(self, tree):
        return len(tree) > 1 and not tree.in_flight

    def answer(self, tree):
        return self.given


@pytest.mark.parametrize(
    "strategy",
    [
        Chooses(Expansion(7)),
        Chooses(Expansion(-1)),
        Chooses(Expansion(0, n=0)),
        Chooses(Expansion(0, max_steps=0)),
        Chooses(Expansion(0), answer=0),
        Chooses(Expansion(0), answer=1),
        Chooses(Expansion(0), answer=99),
    ],
    ids=["unknown node", "negative node", "no samples", "no steps", "root", "unfinished", "unknown answer"],
)
async def test_a_strategy_that_breaks_its_contract_is_an_error_that_names_it(strategy):
    with pytest.raises(StrategyError, match="Chooses"):
        await search("q", ScriptedPolicy({(): ["a"]}), None, strategy)


def test_every_error_is_caught_as_one():
    for error in (ConfigurationError, PolicyError, VerifierError, StrategyError):
        assert issubclass(error, O1ReasonError)
