"""Beam search over steps: with value prompts, Tree-of-Thoughts BFS (Yao et al. 2023, arXiv 2305.10601, algorithm 1).

    S_0 = {root};  C_t = { s + a : s in S_t-1, a among `branch` samples of pi(.|s) };  S_t = top `width` of C_t by f

f aggregates the rewards of the path. The order is stable: of equals the older stays. The root alone is sampled
width * branch times, so that every level has as many candidates. A finished path that makes the cut keeps its
place at its own level and is an answer; it is not expanded again and takes no place later. A path that turns out to
have no continuation gives its place to the next best of its level.

Under *min* and *prod* f can only fall along a path, so the search is over as soon as an answer is worth at least
as much as every path still open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..aggregate import Aggregate, Ranking, check_aggregate
from ..mdp import Expansion
from ..tree import ROOT, Tree
from ._local import at_least, backup_local, best_terminal, heat, quiet, worth


@dataclass(frozen=True, slots=True)
class BeamSearch:
    """Keep `width` paths per depth, expand each into `branch`."""

    width: int = 4
    branch: int = 4
    max_depth: int = 32
    aggregate: Aggregate = "last"
    temperature: float | None = None

    def __post_init__(self) -> None:
        at_least(1, width=self.width, branch=self.branch, max_depth=self.max_depth)
        check_aggregate(self.aggregate)
        heat(self.temperature)

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        if tree.last is None:
            return [Expansion(ROOT, self.width * self.branch, 1, self.temperature)]
        open_nodes = self._open(tree)
        return [Expansion(i, self.branch, 1, self.temperature) for i in open_nodes[:room]]

    def frontier(self, tree: Tree, depth: int) -> list[int]:
        """S_depth: the `width` best nodes of a level, best first."""
        alive = [i for i in tree.levels[depth] if tree.nodes[i].dead is None] if depth < len(tree.levels) else []
        return sorted(alive, key=lambda i: -worth(tree, i, self.aggregate))[: self.width]

    def _open(self, tree: Tree) -> list[int]:
        """What of the current level is still to expand, best first; the next level once this one is complete."""
        depth = 0 if tree.last is None else tree.nodes[tree.last].depth
        here = [i for i in self.frontier(tree, depth) if not tree.nodes[i].drawn and tree.nodes[i].open]
        if here or not quiet(tree):
            return here
        after = [i for i in self.frontier(tree, depth + 1) if tree.nodes[i].open]
        return after if depth + 1 < self.max_depth and not self._decided(tree, after) else []

    def _decided(self, tree: Tree, open_nodes: Sequence[int]) -> bool:
        if self.aggregate not in ("min", "prod"):
            return False
        found = best_terminal(tree, self.aggregate)
        return found is not None and all(
            worth(tree, i, self.aggregate) <= worth(tree, found, self.aggregate) for i in open_nodes
        )

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        backup_local(tree, new, self.aggregate)

    def done(self, tree: Tree) -> bool:
        return tree.last is not None and quiet(tree) and not self._open(tree)

    def answer(self, tree: Tree) -> int | None:
        return best_terminal(tree, self.aggregate)

    def ranking(self, tree: Tree) -> Ranking:
        return Ranking(tree, self.aggregate)
