"""Chain of thought: one trajectory, greedy by default (Wei et al. 2022, arXiv 2201.11903)."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..aggregate import Ranking
from ..mdp import Expansion
from ..tree import ROOT, Tree
from ._local import at_least, backup_local, best_terminal, heat, sampled, trajectories


@dataclass(frozen=True, slots=True)
class ChainOfThought:
    """a_t ~ pi(.|s_t) until terminal, once; `temperature` 0 takes the likeliest, None is the policy's own."""

    temperature: float | None = 0.0
    max_depth: int = 64

    def __post_init__(self) -> None:
        at_least(1, max_depth=self.max_depth)
        heat(self.temperature)

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        return trajectories(tree, room, 1 - tree.nodes[ROOT].drawn, self.max_depth, self.temperature)

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        backup_local(tree, new)

    def done(self, tree: Tree) -> bool:
        return sampled(tree, 1)

    def answer(self, tree: Tree) -> int | None:
        return best_terminal(tree)

    def ranking(self, tree: Tree) -> Ranking:
        return Ranking(tree)
