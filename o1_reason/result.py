"""What a search found, and what it cost."""

from dataclasses import dataclass

from .mdp import Usage
from .tree import Tree


@dataclass(frozen=True)
class Result:
    """What a search found, and what it cost."""

    answer: str | None  # final answer, as the chosen path states it
    text: str  # the chosen reasoning, whole
    confidence: float | None  # in [0, 1]: the verifier's score of the answer, or its share of the vote
    stop: str  # "done" | "budget" | "deadline" | "exhausted"
    usage: Usage
    policy_usage: Usage
    verifier_usage: Usage
    tree: Tree
    node: int | None  # the chosen leaf
    ranking: tuple[tuple[str, float], ...]  # distinct answers, best first

    @property
    def answered(self) -> bool:
        """There is an answer, and no verifier has ruled it out."""
        return self.answer is not None and self.confidence != 0
