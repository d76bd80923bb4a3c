"""Self-consistency: sample n trajectories, answer with the majority (Wang et al. 2022, arXiv 2203.11171).

    answer = argmax_a  sum_i 1[a_i = a]

It stops early, and cancels what is in flight, once no outstanding sample can change the winner: with L votes for
the first answer, S for the second and R samples outstanding, when L > S + R. It never orders more than the least
number m of further samples that could decide the vote, L + m > S + (R - m), so a vote that is decided early
costs little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..aggregate import Ranking
from ..mdp import Expansion
from ..tree import ROOT, Tree
from ._local import at_least, backup_local, heat, quiet, sampled, trajectories


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """Majority vote over at most `n` trajectories; no verifier needed."""

    n: int = 16
    temperature: float | None = None
    max_depth: int = 64
    uses_verifier: ClassVar[bool] = False

    def __post_init__(self) -> None:
        at_least(1, n=self.n, max_depth=self.max_depth)
        heat(self.temperature)

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        drawn = tree.nodes[ROOT].drawn
        first, second = leaders(tree)
        outstanding = self.n - tree.finished
        deciding = (second + outstanding - first) // 2 + 1  # the least m with first + m > second + outstanding - m
        out = drawn - tree.finished  # ordered, and not come back as an answer
        more = min(self.n - drawn, deciding - out)
        if more <= 0 and quiet(tree) and not tree.ends:
            more = min(1, self.n - drawn)  # some samples never answered
        return trajectories(tree, room, more, self.max_depth, self.temperature)

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        backup_local(tree, new)

    def done(self, tree: Tree) -> bool:
        first, second = leaders(tree)
        if first > second + self.n - tree.finished:
            return True
        return sampled(tree, self.n)

    def answer(self, tree: Tree) -> int | None:
        return self.ranking(tree).node

    def ranking(self, tree: Tree) -> Ranking:
        return Ranking(tree, vote="majority")


def leaders(tree: Tree) -> tuple[int, int]:
    """Votes of the first and the second answer."""
    first = second = 0
    for votes in tree.votes.values():
        if votes > first:
            first, second = votes, first
        elif votes > second:
            second = votes
    return first, second
