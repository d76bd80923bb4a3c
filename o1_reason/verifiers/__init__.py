"""Verifiers that need no model of their own: checks of the answer, critics over any chat model, combinations."""

from .combine import Gate
from .outcome import ExactMatch, JSONSchema, MathEquivalence, NumericTolerance, Regex

__all__ = ["ExactMatch", "Gate", "JSONSchema", "MathEquivalence", "NumericTolerance", "Regex"]
