"""The laws of a strategy, on random trees, random completion orders, random widths of the pool."""

import math
import random
from itertools import count

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from o1_reason import (
    DVTS,
    MCTS,
    BeamSearch,
    BestOfN,
    Budget,
    ChainOfThought,
    DepthFirst,
    Expansion,
    O1ReasonError,
    Proposals,
    SelfConsistency,
    StrategyError,
    search,
)
from o1_reason.testing import Lawful, RandomWorld, check_strategy

AGGREGATES = {
    "last": lambda rewards: rewards[-1],
    "min": min,
    "prod": math.prod,
    "mean": lambda rewards: sum(rewards) / len(rewards),
}
few = st.integers(1, 5)
eighths = st.integers(0, 8).map(lambda k: k / 8)
aggregate = st.sampled_from(list(AGGREGATES))

SAMPLERS = st.one_of(
    st.builds(ChainOfThought, max_depth=few),
    st.builds(SelfConsistency, n=st.integers(1, 9), max_depth=few),
    st.builds(BestOfN, few, aggregate, st.sampled_from(["none", "majority", "weighted"]), max_depth=few),
)
LOCAL = st.one_of(
    st.builds(BeamSearch, few, few, few, aggregate),
    st.builds(DepthFirst, few, eighths, few, eighths),
    st.builds(lambda groups, *rest: DVTS(groups * rest[0], *rest), few, few, few, aggregate),
)
TREE_SEARCH = st.builds(
    MCTS,
    simulations=st.integers(1, 20),
    branch=few,
    c_puct=st.floats(0, 4),
    root=st.sampled_from(["gumbel", "puct"]),
    root_branch=st.none() | st.integers(1, 8),
    considered=st.integers(1, 8),
    max_depth=few,
    aggregate=aggregate,
)
SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))


class HarshWorld(RandomWorld):
    """A random world whose calls give few samples, give none, or fail, by chance."""

    def __init__(self, seed, trouble, samples_per_call=None, **options):
        super().__init__(seed, **options)
        self.trouble = trouble
        self.samples_per_call = samples_per_call
        self.calls = count()

    def _luck(self):
        return random.Random(f"{self.seed}|luck|{next(self.calls)}").random()

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        luck = self._luck()
        found = await super().propose(state, n, max_steps, temperature=temperature)
        if luck < self.trouble / 2:
            raise ConnectionError("the policy is away")
        return Proposals(()) if luck < self.trouble else found

    async def score(self, states):
        luck = self._luck()
        found = await super().score(states)
        if luck < self.trouble:
            raise ConnectionError("the verifier is away")
        return found


worlds = st.builds(
    lambda seed, **rest: RandomWorld(seed, **rest), SEEDS, branch=few, depth=few, order=st.integers(0, 1000)
)
harsh_worlds = st.builds(
    HarshWorld, SEEDS, st.sampled_from([0.0, 0.1, 0.3, 1.0]), st.sampled_from([None, 1, 2]), branch=few, depth=few,
    order=st.integers(0, 1000),
)  # fmt: skip


async def finished(world, strategy, concurrency):
    """The tree of one search under the laws."""
    return (await search("law", world, world, Lawful(strategy), Budget(concurrency=concurrency, max_nodes=None))).tree


@quick
@given(SAMPLERS | LOCAL | TREE_SEARCH, SEEDS)
async def test_every_strategy_keeps_the_laws(strategy, seed):
    await check_strategy(strategy, worlds=2, seed=seed)


@quick
@given(SAMPLERS | LOCAL | TREE_SEARCH, harsh_worlds, few)
async def test_every_strategy_keeps_the_laws_when_calls_fail_or_give_nothing(strategy, world, concurrency):
    assume(not isinstance(strategy, SelfConsistency))  # see the next test
    await finished_or_away(world, strategy, concurrency)


@quick
@example(SelfConsistency(5), HarshWorld(0, 1.0), 1)
@given(st.builds(SelfConsistency, n=st.integers(1, 9), max_depth=few), harsh_worlds, few)
async def test_self_consistency_keeps_the_laws_when_calls_fail_or_give_nothing(strategy, world, concurrency):
    await finished_or_away(world, strategy, concurrency)


async def finished_or_away(world, strategy, concurrency):
    try:
        await finished(world, strategy, concurrency)
    except O1ReasonError as error:  # nothing at all succeeded
        assert "away" in str(error), repr(error)


# Values against brute force.


def path_rewards(tree, node):
    found = []
    while node.parent is not None:
        found.insert(0, node.reward)
        node = tree.nodes[node.parent]
    return [reward for reward in found if reward is not None]


SCORED = LOCAL | SAMPLERS.filter(lambda strategy: not isinstance(strategy, SelfConsistency))


@quick
@given(SCORED, worlds, few)
async def test_a_local_strategy_values_the_path(strategy, world, concurrency):
    tree = await finished(world, strategy, concurrency)
    how = AGGREGATES[getattr(strategy, "aggregate", "last")]
    for node in tree.nodes:
        alive = node.reward is not None and node.dead is None
        assert node.value == pytest.approx(how(path_rewards(tree, node)) if alive else 0.0), node


@quick
@example(BeamSearch(1, 1, 2), RandomWorld(269, branch=2, depth=2), 1)
@given(SCORED, worlds, few)
async def test_a_local_strategy_visits_each_scored_state_once(strategy, world, concurrency):
    tree = await finished(world, strategy, concurrency)
    assert [node.visits for node in tree.nodes[1:]] == [int(node.reward is not None) for node in tree.nodes[1:]]
    assert tree.nodes[0].visits == 0


def best_reward(tree, node):
    """What expanding `node` brought: of a child that was alive when it was scored, even if it turned out barren."""
    children = [tree.nodes[i] for i in node.children]
    return max((child.reward for child in children if child.dead is None or child.drawn), default=0.0)


def check_means(tree):
    for node in tree.nodes:
        below = [n for n in tree.walk(node.id) if n.drawn]
        assert node.visits == len(below), node
        mean = sum(best_reward(tree, n) for n in below) / len(below) if below else 0.0
        assert node.value == pytest.approx(mean), node


@quick
@given(TREE_SEARCH, worlds, few)
async def test_mcts_counts_the_expansions_below_and_values_their_mean(strategy, world, concurrency):
    check_means(await finished(world, strategy, concurrency))


@quick
@example(MCTS(1, 1), 0, 1, 1)
@given(TREE_SEARCH, SEEDS, few, st.sampled_from([1, 2]))
async def test_mcts_counts_an_expansion_once_however_many_calls_it_takes(strategy, seed, concurrency, per_call):
    check_means(await finished(HarshWorld(seed, 0.0, per_call, order=seed), strategy, concurrency))


@quick
@example(MCTS(1, 1, max_depth=3), RandomWorld(0, branch=2, depth=3), 2)
@given(TREE_SEARCH, worlds, few)
async def test_mcts_makes_its_simulations_and_no_more_unless_nothing_is_left(strategy, world, concurrency):
    tree = await finished(world, strategy, concurrency)
    left = [n for n in tree.nodes if n.open and not n.drawn and n.depth < strategy.max_depth]
    made = tree.nodes[0].visits - 1  # the root's own expansion is no simulation
    assert made == strategy.simulations or (made < strategy.simulations and not left)


@quick
@given(st.integers(1, 9), worlds, few)
async def test_self_consistency_is_decided_when_it_stops_and_has_nothing_left_to_cancel(n, world, concurrency):
    tree = await finished(world, SelfConsistency(n), concurrency)
    first, second = [*sorted(tree.votes.values(), reverse=True), 0, 0][:2]
    root = tree.nodes[0]
    assert first > second + n - tree.finished or root.drawn == n or not root.open
    assert not tree.in_flight


# The checks catch what breaks the laws.


class SelectsFinished(BeamSearch):
    def select(self, tree, room):
        return [Expansion(tree.terminals[0])] if tree.terminals else super().select(tree, room)


class SelectsUnknown(BeamSearch):
    def select(self, tree, room):
        return [Expansion(len(tree))]


class SelectsNothing(BeamSearch):
    def select(self, tree, room):
        return ()


class SelectsTooMuch(BeamSearch):
    def select(self, tree, room):
        return super().select(tree, room) if tree.last is None else [Expansion(0)] * (room + 1)


class SelectWrites(BeamSearch):
    def select(self, tree, room):
        tree.nodes[0].visits += 1
        return super().select(tree, room)


class BackupWritesReward(BeamSearch):
    def backup(self, tree, new):
        super().backup(tree, new)
        for i in new:
            tree.nodes[i].reward = 1.0


class BackupLeavesUnitInterval(BeamSearch):
    def backup(self, tree, new):
        tree.nodes[0].value = 1.5


class NeverDone(BeamSearch):
    def done(self, tree):
        return False


class AnswersUnfinished(BeamSearch):
    def answer(self, tree):
        return 0


class DependsOnMoreThanTheTree(BeamSearch):
    runs = count()

    def select(self, tree, room):
        return [Expansion(0, 1 + next(self.runs) % 7)] if tree.last is None else super().select(tree, room)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (SelectsFinished, "is finished or dead"),
        (SelectsUnknown, "does not exist"),
        (SelectsNothing, "nothing selected"),
        (SelectsTooMuch, "free slots"),
        (SelectWrites, "select changed the tree"),
        (BackupWritesReward, "backup may write"),
        (BackupLeavesUnitInterval, r"not in \[0, 1\]"),
        (NeverDone, "nothing selected"),
        (AnswersUnfinished, "not terminal"),
        (DependsOnMoreThanTheTree, "two different trees"),
    ],
)
async def test_a_broken_strategy_is_caught(broken, law):
    with pytest.raises((AssertionError, StrategyError), match=law):
        await check_strategy(broken())
