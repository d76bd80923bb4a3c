"""With budget enough to see everything, a search finds what exhaustive enumeration finds."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1_reason import MCTS, BeamSearch, BestOfN, Budget, DepthFirst, Score, SelfConsistency, Step, search
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

AGGREGATES = {"last": lambda r: r[-1], "min": min, "prod": math.prod, "mean": lambda r: sum(r) / len(r)}
BRANCH, DEPTH = 3, 4
some = settings(max_examples=40, deadline=None)
aggregates = st.sampled_from(list(AGGREGATES))
rewards = st.integers(0, 100).map(lambda k: k / 100)


def subtrees(depth):
    """A list of (reward, answer or None, subtree); an empty list is a dead end, an answer ends a path."""
    leaf = st.tuples(rewards, st.sampled_from("xyz"), st.just([]))
    if depth == 1:
        return st.lists(leaf, max_size=BRANCH)
    inner = st.tuples(rewards, st.none(), subtrees(depth - 1))
    return st.lists(leaf | inner, max_size=BRANCH, min_size=depth == DEPTH)


trees = subtrees(DEPTH)


def enumerate_paths(tree, path=()):
    """Every (steps, rewards) from the root to a finished answer."""
    for i, (reward, answer, below) in enumerate(tree):
        here = (*path, (Step(f"{len(path)}.{i}", answer is not None, answer), reward))
        if answer is not None:
            yield tuple(step for step, _ in here), tuple(r for _, r in here)
        else:
            yield from enumerate_paths(below, here)


def scripted(tree):
    script, values = {}, {}

    def walk(path, children):
        script[path] = [Step(f"{len(path)}.{i}", a is not None, a) for i, (_, a, _) in enumerate(children)]
        for i, (reward, answer, below) in enumerate(children):
            here = (*path, f"{len(path)}.{i}")
            values[here] = reward
            if answer is None:
                walk(here, below)

    walk((), tree)
    return ScriptedPolicy(script), ScriptedVerifier(values)


async def best_found(tree, strategy, aggregate, concurrency=4):
    """The aggregated reward of the path that the search chose, worked out from its tree."""
    result = await search("q", *scripted(tree), strategy, Budget(concurrency=concurrency))
    if result.node is None:
        return None
    path = [result.tree.nodes[i].reward for i in result.tree.path(result.node)[1:]]
    assert result.confidence == pytest.approx(AGGREGATES[aggregate](path))
    return AGGREGATES[aggregate](path)


def optimum(tree, aggregate):
    return max((AGGREGATES[aggregate](rs) for _, rs in enumerate_paths(tree)), default=None)


@some
@given(trees, aggregates)
async def test_a_beam_as_wide_as_the_tree(tree, aggregate):
    strategy = BeamSearch(BRANCH**DEPTH, BRANCH, aggregate=aggregate)
    assert await best_found(tree, strategy, aggregate) == pytest.approx(optimum(tree, aggregate))


@some
@given(trees)
async def test_depth_first_that_prunes_nothing_and_accepts_only_certainty(tree):
    found = await best_found(tree, DepthFirst(BRANCH, threshold=0.0, accept=1.0), "last")
    assert found == optimum(tree, "last")


@some
@given(trees, aggregates, st.sampled_from(["gumbel", "puct"]), st.integers(1, 16))
async def test_mcts_with_a_simulation_for_every_state(tree, aggregate, root, considered):
    strategy = MCTS(BRANCH**DEPTH, BRANCH, root=root, considered=considered, aggregate=aggregate)
    assert await best_found(tree, strategy, aggregate) == pytest.approx(optimum(tree, aggregate))


class Recited:
    """A process reward model that knows every path."""

    def __init__(self, paths):
        self.known = dict(paths)

    async def score(self, states):
        return [Score(self.known[state.steps]) for state in states]


@some
@given(trees.filter(lambda tree: any(enumerate_paths(tree))), aggregates, st.integers(1, 3))
async def test_best_of_n_that_samples_every_trajectory(tree, aggregate, rounds):
    paths = list(enumerate_paths(tree))
    policy = ScriptedPolicy({(): [steps for steps, _ in paths]}, repeat=True)
    strategy = BestOfN(rounds * len(paths), aggregate)
    result = await search("q", policy, Recited(paths), strategy)
    assert result.confidence == pytest.approx(optimum(tree, aggregate))
    assert result.tree.finished == rounds * len(paths)


@some
@given(trees.filter(lambda tree: any(enumerate_paths(tree))))
async def test_self_consistency_that_samples_every_trajectory(tree):
    paths = list(enumerate_paths(tree))
    counts = Counter(steps[-1].answer for steps, _ in paths)
    policy = ScriptedPolicy({(): [steps for steps, _ in paths]}, samples_per_call=1)
    result = await search("q", policy, None, SelfConsistency(len(paths)))
    assert counts[result.answer] == max(counts.values())


@some
@given(trees.filter(lambda tree: any(enumerate_paths(tree))), aggregates)
async def test_weighted_votes_add_up_over_all_trajectories(tree, aggregate):
    paths = list(enumerate_paths(tree))
    sums = Counter()
    for steps, path_rewards in paths:
        sums[steps[-1].answer] += AGGREGATES[aggregate](path_rewards)
    policy = ScriptedPolicy({(): [steps for steps, _ in paths]})
    result = await search("q", policy, Recited(paths), BestOfN(len(paths), aggregate, "weighted"))
    assert sums[result.answer] == pytest.approx(max(sums.values()))
