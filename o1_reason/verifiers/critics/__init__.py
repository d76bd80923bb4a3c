"""Verifiers over a chat model: it scores states, votes among them, or compares them in pairs."""

from .pairwise import PairwiseCritic
from .score import Critic
from .vote import VoteCritic

__all__ = ["Critic", "PairwiseCritic", "VoteCritic"]
