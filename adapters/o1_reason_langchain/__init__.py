"""Any LangChain chat model as policy or critic of o1-reason.

A `BaseChatModel` can be given as it is: ``search(question, ChatOpenAI(...))``. By name it is ``"langchain:MODEL"`` as
`langchain.chat_models.init_chat_model` takes it, for example ``"langchain:anthropic:claude-sonnet-4-5"``, with the
same settings behind a question mark as the other adapters.
"""

from typing import Any

from o1_reason.chat_policy import ChatPolicy
from o1_reason.errors import ConfigurationError
from o1_reason.protocols import Verifier
from o1_reason.resolve import build, check_empty, read_name
from o1_reason.verifiers.critics import CRITICS, Critic

from .chat import LangChainChat

__all__ = ["LangChainChat"]


def wrap_policy(model: Any) -> ChatPolicy:
    """A chat model as a policy, with the settings that the model has."""
    return ChatPolicy(LangChainChat(model), temperature=None)


def wrap_verifier(model: Any) -> Verifier:
    """A chat model as a critic."""
    return Critic(LangChainChat(model))


def policy(name: str) -> ChatPolicy:
    """``"langchain:PROVIDER:MODEL?settings"`` as a policy; settings are those of `LangChainChat` and `ChatPolicy`."""
    model, settings = read_name(name)
    made = build(ChatPolicy, settings, build(LangChainChat, settings, _model(model)))
    check_empty(settings, f"langchain:{model}", LangChainChat, ChatPolicy)
    return made


def verifier(name: str) -> Verifier:
    """``"langchain:PROVIDER:MODEL?as=critic|vote|pairwise"`` as a critic."""
    model, settings = read_name(name)
    role = settings.pop("as", "critic")
    if role not in CRITICS:
        raise ConfigurationError(f"as must be one of {', '.join(CRITICS)}; got {role!r}")
    made = build(CRITICS[role], settings, build(LangChainChat, settings, _model(model)))
    check_empty(settings, f"langchain:{model}?as={role}", LangChainChat, CRITICS[role])
    return made


def _model(name: str) -> Any:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ConfigurationError(
            "naming a LangChain model needs the package langchain: pip install langchain. A model object, for example "
            'ChatOpenAI("..."), can be given as it is without it'
        ) from error
    try:
        return init_chat_model(name)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"LangChain has no chat model {name!r} here: {error}") from error
