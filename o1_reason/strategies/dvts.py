"""Diverse verifier tree search: independent greedy searches side by side (Beeching et al. 2024, "Scaling test-time
compute with open models").

The root is sampled n times; the samples, by age, make n / branch groups. Each group keeps its best node, expands
that into `branch`, keeps the best of these, and so on to the end. Groups never compete, so one wrong but
high-scored opening cannot fill the beam, and none waits for another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..aggregate import Aggregate, Ranking, check_aggregate
from ..errors import ConfigurationError
from ..mdp import Expansion
from ..tree import ROOT, Node, Tree, best
from ._local import at_least, backup_local, best_terminal, heat, quiet, worth


@dataclass(frozen=True, slots=True)
class DVTS:
    """n / branch independent beams of width one, each choosing among `branch`."""

    n: int = 16
    branch: int = 4
    max_depth: int = 32
    aggregate: Aggregate = "last"
    temperature: float | None = None

    def __post_init__(self) -> None:
        at_least(1, n=self.n, branch=self.branch, max_depth=self.max_depth)
        check_aggregate(self.aggregate)
        heat(self.temperature)
        if self.n % self.branch:
            raise ConfigurationError(f"n must be a multiple of branch; got {self.n} and {self.branch}")

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        root = tree.nodes[ROOT]
        if not root.drawn:
            return [Expansion(ROOT, self.n, 1, self.temperature)]
        fresh = (node.id for node in self._heads(tree) if not node.drawn)
        return [Expansion(i, self.branch, 1, self.temperature) for i, _ in zip(fresh, range(room), strict=False)]

    def _heads(self, tree: Tree) -> Iterator[Node]:
        """The open end of each group that has one: where it is, or was last, expanded."""
        root = tree.nodes[ROOT]
        if root.pending or any(tree.nodes[i].waiting for i in root.children):
            return
        for start in range(0, len(root.children), self.branch):
            group = root.children[start : start + self.branch]
            while group and not any(tree.nodes[i].waiting for i in group):
                alive = (i for i in group if tree.nodes[i].dead is None)
                i = best(alive, lambda i: worth(tree, i, self.aggregate))
                if i is None or not tree.nodes[i].open or tree.nodes[i].depth >= self.max_depth:
                    break
                node = tree.nodes[i]
                if not node.drawn or node.pending:
                    yield node
                    break
                group = node.children

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        backup_local(tree, new, self.aggregate)

    def done(self, tree: Tree) -> bool:
        return bool(tree.nodes[ROOT].drawn) and quiet(tree) and next(self._heads(tree), None) is None

    def answer(self, tree: Tree) -> int | None:
        return best_terminal(tree, self.aggregate)

    def ranking(self, tree: Tree) -> Ranking:
        return Ranking(tree, self.aggregate)
