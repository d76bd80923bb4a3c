"""Verifiers that need no model of their own: checks of the answer, critics over any chat model, combinations."""

from .combine import Gate

__all__ = ["Gate"]
