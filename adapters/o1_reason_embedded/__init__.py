"""The embedded reasoner: a tiny policy and process reward model for arithmetic puzzles, offline, in plain numpy.

As an adapter of o1-reason it is named ``"embedded"``; as a verifier also ``"embedded:rules"``, the exact rule check,
``"embedded:prm+rules"``, the reward model with the rule check at the end, and ``"embedded:turns"``, the reward model
for turns of `EmbeddedChatModel`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from o1_reason.errors import ConfigurationError
from o1_reason.protocols import Verifier
from o1_reason.verifiers import Gate

from .learner import EmbeddedLearner
from .policy import EmbeddedPolicy
from .verifier import EmbeddedVerifier, RuleVerifier

if TYPE_CHECKING:
    from .chat_model import EmbeddedChatModel
    from .turns import TurnVerifier

__all__ = [
    "EmbeddedChatModel",
    "EmbeddedLearner",
    "EmbeddedPolicy",
    "EmbeddedVerifier",
    "RuleVerifier",
    "TurnVerifier",
]

# What needs LangChain is imported when it is first used.
_LAZY = {"EmbeddedChatModel": ".chat_model", "TurnVerifier": ".turns"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def policy(model: str) -> EmbeddedPolicy:
    """``"embedded"``."""
    if model:
        raise ConfigurationError(f'the embedded policy is named "embedded"; there is no "embedded:{model}"')
    return EmbeddedPolicy()


def verifier(model: str) -> Verifier:
    """``"embedded"``, ``"embedded:rules"``, ``"embedded:prm+rules"`` or ``"embedded:turns"``."""
    match model:
        case "" | "prm":
            return EmbeddedVerifier()
        case "rules":
            return RuleVerifier()
        case "prm+rules":
            return Gate(EmbeddedVerifier(), RuleVerifier())
        case "turns":
            from .turns import TurnVerifier

            return TurnVerifier()
    raise ConfigurationError(
        f'no embedded verifier {model!r}: "embedded", "embedded:rules", "embedded:prm+rules", "embedded:turns"'
    )


def learner(model: str) -> EmbeddedLearner:
    """``"embedded"``."""
    if model:
        raise ConfigurationError(f'the embedded learner is named "embedded"; there is no "embedded:{model}"')
    return EmbeddedLearner()
