"""Tree of Thoughts (Yao et al. 2023), reimplemented plainly and replayed from the same recordings of a model.

`bfs` and `dfs` are the paper's algorithms 1 and 2 over recorded proposals and values; `BeamSearch` and `DepthFirst`
must expand the same states in the same order and give the same answer.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from o1_reason import BeamSearch, Budget, DepthFirst, Step, search
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

VALUES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # few, so that ties abound
BRANCH = 3
many = settings(max_examples=200, deadline=None)


class Recording:
    """What a model proposed and how it rated it: `proposals` and `values` by path, thoughts all the way to `depth`."""

    def __init__(self, depth, root):
        self.depth = depth
        self.proposals, self.values = {}, {}
        self._add((), root)

    def _add(self, path, thoughts):
        self.proposals[path] = [(*path, f"{len(path)}{letter}") for letter, _ in zip("abc", thoughts, strict=False)]
        for child, (value, below) in zip(self.proposals[path], thoughts, strict=True):
            self.values[child] = value
            if len(child) < self.depth:
                self._add(child, below)

    def policy(self):
        ends = self.depth - 1
        return ScriptedPolicy(
            {
                path: [
                    Step(new[-1], terminal=len(path) == ends, answer="/".join(new) if len(path) == ends else None)
                    for new in children
                ]
                for path, children in self.proposals.items()
            }
        )

    def verifier(self):
        return ScriptedVerifier(self.values)

    def __repr__(self):
        return f"Recording({self.depth}, {self.values})"


def thoughts(depth, least):
    below = thoughts(depth - 1, least) if depth > 1 else st.just([])
    return st.lists(st.tuples(VALUES, below), min_size=least, max_size=BRANCH)


def recordings(least):
    """Of a model that has at least so many proposals for every state."""
    depths = st.integers(1, 4)
    return depths.flatmap(lambda depth: thoughts(depth, least).map(lambda root: Recording(depth, root)))


def bfs(recording, breadth):
    """Algorithm 1: the states expanded, in order, and the last state kept first."""
    expanded, kept = [], [()]
    for _ in range(recording.depth):
        candidates = []
        for state in kept:
            expanded.append(state)
            candidates += recording.proposals[state]
        candidates.sort(key=lambda state: recording.values[state], reverse=True)  # stable
        kept = candidates[:breadth]
    return expanded, kept[0] if kept else None


def dfs(recording, threshold, accept):
    """Algorithm 2: the states expanded, in order, and the best output (the first of equals).

    As in the paper's crosswords, the search may stop at an output that is good enough.
    """
    expanded, outputs = [], []

    def visit(state):
        if len(state) == recording.depth:
            outputs.append(state)
            return recording.values[state] >= accept
        expanded.append(state)
        for candidate in sorted(recording.proposals[state], key=lambda s: recording.values[s], reverse=True):
            if recording.values[candidate] > threshold and visit(candidate):
                return True
        return False

    visit(())
    return expanded, max(outputs, key=lambda s: recording.values[s], default=None)


async def replay(recording, strategy):
    policy = recording.policy()
    result = await search("q", policy, recording.verifier(), strategy, Budget(concurrency=1))
    return [path for path, _, _ in policy.calls], result


@many
@given(recordings(least=1), st.integers(1, 5))
async def test_beam_search_is_tree_of_thoughts_bfs(recording, breadth):
    expanded, chosen = bfs(recording, breadth)
    calls, result = await replay(recording, BeamSearch(breadth, BRANCH))
    assert calls == expanded
    assert result.answer == (chosen and "/".join(chosen))


@many
@given(recordings(least=0), st.sampled_from([0.1, 0.3, 0.6]), st.sampled_from([0.7, 1.0]))
async def test_depth_first_is_tree_of_thoughts_dfs(recording, threshold, accept):
    expanded, chosen = dfs(recording, threshold, accept)
    calls, result = await replay(recording, DepthFirst(BRANCH, threshold, accept=accept))
    assert calls == expanded
    if chosen is not None:  # else even a pruned finished path is better than no answer
        assert result.answer == "/".join(chosen)


@many
@given(recordings(least=0), st.integers(1, 5))
async def test_no_state_is_expanded_twice(recording, breadth):
    for strategy in (BeamSearch(breadth, BRANCH), DepthFirst(BRANCH, 0.3)):
        calls, _ = await replay(recording, strategy)
        assert len(calls) == len(set(calls))
