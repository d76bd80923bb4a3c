"""Everything that o1-reason raises.

* O1ReasonError
  + ConfigurationError   the call cannot work as written; also a ValueError
  + PolicyError          a policy failed, or broke its contract
  + ModelError           a model's endpoint failed; in a search it arrives as PolicyError or VerifierError
  + VerifierError        a verifier failed, or broke its contract
    + UnjudgedError      it could score some of the states, and not the others
  + StrategyError        a strategy broke its contract
  + LedgerError          a ledger cannot be opened, read or written

Running out of budget is a result (`Result.stop`), not an error.
"""

from collections.abc import Sequence
from typing import Any


class O1ReasonError(Exception):
    """Base of all errors raised by o1-reason."""


class ConfigurationError(O1ReasonError, ValueError):
    """The call cannot work as written: an unknown name, an impossible number, a question outside the domain."""


class PolicyError(O1ReasonError):
    """A policy failed, or its proposals break the contract of `Policy.propose`."""


class VerifierError(O1ReasonError):
    """A verifier failed, or its scores are not in [0, 1], or not one per step (or one per state)."""


class UnjudgedError(VerifierError):
    """A verifier has no score for some of the states.

    `scores` holds what the call was for, in order: None for those states, and the scores of the others, which are paid
    for and valid. A search keeps them.
    """

    def __init__(self, message: str, scores: Sequence[Any]) -> None:
        super().__init__(message)
        self.scores = tuple(scores)


class ModelError(O1ReasonError):
    """A model's endpoint is dead, overloaded or answers nonsense. A search turns it into the error of its role."""


class StrategyError(O1ReasonError):
    """A strategy selected what cannot be expanded, or answered with what is not an answer."""


class LedgerError(O1ReasonError):
    """A ledger cannot be opened, read or written."""
