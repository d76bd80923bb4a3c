"""Checks of the answer, critics over any chat model, and verifiers made of verifiers."""

from .combine import Cascade, Gate, Mean, Product
from .critics import Critic, PairwiseCritic, VoteCritic
from .outcome import ExactMatch, JSONSchema, MathEquivalence, NumericTolerance, Regex
from .unit_tests import UnitTests

__all__ = [
    "Cascade",
    "Critic",
    "ExactMatch",
    "Gate",
    "JSONSchema",
    "MathEquivalence",
    "Mean",
    "NumericTolerance",
    "PairwiseCritic",
    "Product",
    "Regex",
    "UnitTests",
    "VoteCritic",
]
