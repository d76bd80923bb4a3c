"""Depth-first search with pruning and backtracking: Tree-of-Thoughts DFS (Yao et al. 2023, arXiv 2305.10601,
algorithm 2).

    dfs(s):  for s' in sorted(samples of pi(.|s), by f, best first):  if f(s') >= threshold:  dfs(s')

f is the reward of the last step. Below the threshold a branch is pruned; when all children of a node are pruned or
explored, the search backtracks to the best unexplored sibling. A finished path worth `accept` ends the search;
others are kept as answers and the search goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..aggregate import Ranking
from ..mdp import Expansion
from ..tree import ROOT, Tree
from ._local import at_least, backup_local, best_terminal, heat, in_unit, quiet, worth


@dataclass(frozen=True, slots=True)
class DepthFirst:
    """Follow the best of `branch` steps, prune below `threshold`, backtrack at dead ends."""

    branch: int = 4
    threshold: float = 0.5
    max_depth: int = 32
    accept: float = 0.9
    temperature: float | None = None

    def __post_init__(self) -> None:
        at_least(1, branch=self.branch, max_depth=self.max_depth)
        in_unit(threshold=self.threshold, accept=self.accept)
        heat(self.temperature)

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        if not quiet(tree):
            return ()
        i = self._next(tree)
        return () if i is None else [Expansion(i, self.branch, 1, self.temperature)]

    def _next(self, tree: Tree) -> int | None:
        """The next node in depth-first order: the best unexplored child of the nearest ancestor that has one."""
        if tree.last is None:
            return ROOT
        at: int | None = tree.last
        while at is not None:
            node = tree.nodes[at]
            fresh = [i for i in node.children if self._eligible(tree, i)]
            if fresh:
                return min(fresh, key=lambda i: (-worth(tree, i), i))
            at = node.parent
        return None

    def _eligible(self, tree: Tree, i: int) -> bool:
        node = tree.nodes[i]
        return node.open and not node.drawn and node.depth < self.max_depth and worth(tree, i) >= self.threshold

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        backup_local(tree, new)

    def done(self, tree: Tree) -> bool:
        found = best_terminal(tree)
        if found is not None and worth(tree, found) >= self.accept:
            return True
        return tree.last is not None and quiet(tree) and self._next(tree) is None

    def answer(self, tree: Tree) -> int | None:
        return best_terminal(tree)

    def ranking(self, tree: Tree) -> Ranking:
        return Ranking(tree)
