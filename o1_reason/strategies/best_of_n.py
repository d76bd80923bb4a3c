"""Best-of-N: sample n trajectories, let the verifier choose (Cobbe et al. 2021, arXiv 2110.14168).

    vote "none"        argmax_i f(r_i)                            the best path
    vote "majority"    argmax_a sum_i 1[a_i = a]                  equal to self-consistency
    vote "weighted"    argmax_a sum_i 1[a_i = a] f(r_i)           Li et al. 2022, arXiv 2206.02336, section 3.2
    vote "step_aware"  argmax_a sum_i 1[a_i = a] prod_j s_ij      ibid., section 3.3
                       s_ij = the mean of f(r_k) over the paths k in which the first j steps of path i occur

f aggregates the step rewards r_i of trajectory i: last, min, prod or mean (Lightman et al. 2023, arXiv 2305.20050).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..aggregate import Aggregate, Ranking, Vote, check_aggregate, check_vote
from ..mdp import Expansion
from ..tree import ROOT, Tree
from ._local import at_least, backup_local, best_terminal, heat, sampled, trajectories


@dataclass(frozen=True, slots=True)
class BestOfN:
    """The best of `n` trajectories by a verifier, or by a vote."""

    n: int = 16
    aggregate: Aggregate = "last"
    vote: Vote = "none"
    temperature: float | None = None
    max_depth: int = 64

    def __post_init__(self) -> None:
        at_least(1, n=self.n, max_depth=self.max_depth)
        check_aggregate(self.aggregate)
        check_vote(self.vote)
        heat(self.temperature)

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        return trajectories(tree, room, self.n - tree.nodes[ROOT].drawn, self.max_depth, self.temperature)

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        backup_local(tree, new, self.aggregate)

    def done(self, tree: Tree) -> bool:
        return sampled(tree, self.n)

    def answer(self, tree: Tree) -> int | None:
        if self.vote == "none":
            return best_terminal(tree, self.aggregate)
        return self.ranking(tree).node

    def ranking(self, tree: Tree) -> Ranking:
        return Ranking(tree, self.aggregate, self.vote)
