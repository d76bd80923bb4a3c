"""Verifiers over a chat model: it scores states, votes among them, or compares them in pairs."""

from collections.abc import Callable

from .pairwise import PairwiseCritic
from .score import Critic
from .vote import VoteCritic

__all__ = ["CRITICS", "Critic", "PairwiseCritic", "VoteCritic"]

CRITICS: dict[str, Callable[..., Critic | PairwiseCritic | VoteCritic]] = {  # as adapters name them
    "critic": Critic,
    "vote": VoteCritic,
    "pairwise": PairwiseCritic,
}
