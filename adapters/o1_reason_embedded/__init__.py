"""The embedded reasoner: a tiny policy and process reward model for arithmetic puzzles, offline, in plain numpy.

As an adapter of o1-reason it is named ``"embedded"``; as a verifier also ``"embedded:rules"``, the exact rule check,
and ``"embedded:prm+rules"``, the reward model with the rule check at the end.
"""

from o1_reason.errors import ConfigurationError
from o1_reason.protocols import Verifier
from o1_reason.verifiers import Gate

from .policy import EmbeddedPolicy
from .verifier import EmbeddedVerifier, RuleVerifier

__all__ = ["EmbeddedPolicy", "EmbeddedVerifier", "RuleVerifier"]


def policy(model: str) -> EmbeddedPolicy:
    """``"embedded"``."""
    if model:
        raise ConfigurationError(f'the embedded policy is named "embedded"; there is no "embedded:{model}"')
    return EmbeddedPolicy()


def verifier(model: str) -> Verifier:
    """``"embedded"``, ``"embedded:rules"`` or ``"embedded:prm+rules"``."""
    match model:
        case "" | "prm":
            return EmbeddedVerifier()
        case "rules":
            return RuleVerifier()
        case "prm+rules":
            return Gate(EmbeddedVerifier(), RuleVerifier())
    raise ConfigurationError(f'no embedded verifier {model!r}: "embedded", "embedded:rules", "embedded:prm+rules"')
