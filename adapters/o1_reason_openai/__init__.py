"""Hosted APIs and OpenAI-compatible servers (vLLM, SGLang, llama.cpp, Ollama, TGI, transformers serve) for o1-reason.

As an adapter it is named ``"openai:MODEL"`` or ``"openai:MODEL?name=value&..."``, for example
``"openai:Qwen/Qwen3-8B?base_url=http://127.0.0.1:8000/v1&step_tokens=256"``. Settings are the keyword arguments of
`Endpoint`, `OpenAIChat` and `ChatPolicy`, sampling fields (`SAMPLING`), and ``api_key_env``, the name of the
environment variable that holds the key. For a verifier ``as=`` says what the model is used as.
"""

import os
from typing import Any

from o1_reason.chat_policy import ChatPolicy
from o1_reason.errors import ConfigurationError
from o1_reason.protocols import Verifier
from o1_reason.resolve import build, check_empty, read_name
from o1_reason.verifiers.critics import CRITICS

from .chat import OpenAIChat
from .decisions import Decisions
from .endpoint import Endpoint
from .prm import RemotePRM
from .prm_formats import PRMFormat
from .prm_generative import GenerativePRM
from .wire import Price

__all__ = ["Decisions", "Endpoint", "GenerativePRM", "OpenAIChat", "PRMFormat", "Price", "RemotePRM"]

SERVER = ("base_url", "api_key_env")
SAMPLING = (
    "frequency_penalty", "min_p", "presence_penalty", "reasoning_effort", "repetition_penalty", "service_tier", "top_k",
    "top_p", "verbosity",
)  # fmt: skip
ROLES = (*CRITICS, "prm", "generative", "decisions")


def policy(name: str) -> ChatPolicy:
    """``"openai:MODEL?settings"`` as a policy. Raises ConfigurationError for settings that nobody has."""
    model, settings = read_name(name)
    made = build(ChatPolicy, settings, _chat(model, settings))
    check_empty(settings, f"openai:{model}", Endpoint, OpenAIChat, ChatPolicy, more=(*SERVER, *SAMPLING))
    return made


def verifier(name: str) -> Verifier:
    """``"openai:MODEL?as=ROLE&settings"`` as a verifier.

    as=critic      an LLM critic that scores (the default)
    as=vote        an LLM that votes among candidates
    as=pairwise    an LLM that compares candidates in pairs
    as=prm         a process reward model behind vLLM or SGLang
    as=generative  a process reward model that writes its verdicts (ThinkPRM)
    as=decisions   OpenAI's Decisions API and its siblings
    """
    model, settings = read_name(name)
    role = settings.pop("as", "critic")
    if role in CRITICS:
        kind, made = CRITICS[role], build(CRITICS[role], settings, _chat(model, settings))
    elif role == "generative":
        kind, made = GenerativePRM, build(GenerativePRM, settings, _chat(model, settings))
    elif role in ("prm", "decisions"):
        kind = RemotePRM if role == "prm" else Decisions
        made = build(kind, settings, model, _endpoint(settings))
    else:
        raise ConfigurationError(f"as must be one of {', '.join(ROLES)}; got {role!r}")
    chat = (OpenAIChat,) if role not in ("prm", "decisions") else ()
    more = (*SERVER, *SAMPLING) if chat else SERVER
    check_empty(settings, f"openai:{model}?as={role}", Endpoint, kind, *chat, more=(*more, "as"))
    return made


def _chat(model: str, settings: dict[str, Any]) -> OpenAIChat:
    extra = {name: settings.pop(name) for name in SAMPLING if name in settings} | dict(settings.pop("extra", {}))
    endpoint = _endpoint(settings)
    return build(OpenAIChat, settings, model, endpoint, extra=extra, price=_price(settings))


def _endpoint(settings: dict[str, Any]) -> Endpoint:
    variable = settings.pop("api_key_env", None)
    key = None
    if variable is not None:
        key = os.environ.get(str(variable))
        if not key:
            raise ConfigurationError(f"the environment variable {variable} (api_key_env) is not set")
    return build(Endpoint, settings, settings.pop("base_url", None), key)


def _price(settings: dict[str, Any]) -> Price | None:
    """``price=0.25/2`` or ``price=0.25/2/0.025``: dollars for a million tokens read, generated, read from the cache."""
    given = settings.pop("price", None)
    if given is None:
        return None
    try:
        prompt, completion, *cached = (float(part) for part in str(given).split("/"))
        return Price(prompt, completion, *cached)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"price must be READ/GENERATED or READ/GENERATED/CACHED in dollars; got {given!r}"
        ) from error
