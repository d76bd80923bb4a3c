"""Hugging Face models in this process, on its GPU or CPU, for o1-reason.

As an adapter it is named ``"transformers:MODEL"`` or ``"transformers:MODEL?name=value&..."``, where MODEL is a name on
the Hub or a folder: ``"transformers:Qwen/Qwen3-0.6B?step_tokens=256&top_p=0.95"``. Settings are the keyword arguments
of `TransformersChat` and `ChatPolicy`, of a reward model those of `TransformersPRM`. Importing this loads no PyTorch.
"""

from typing import Any

from o1_reason.chat_policy import ChatPolicy
from o1_reason.errors import ConfigurationError
from o1_reason.protocols import Verifier
from o1_reason.resolve import build, check_empty, read_name
from o1_reason.verifiers.critics import CRITICS

from .chat import TransformersChat
from .learner import TransformersLearner
from .prm import TransformersPRM

__all__ = ["TransformersChat", "TransformersLearner", "TransformersPRM"]

ROLES = ("prm", *CRITICS)


def policy(name: str) -> ChatPolicy:
    """``"transformers:MODEL?settings"`` as a policy. Raises ConfigurationError for settings that nobody has."""
    model, settings = read_name(name)
    made = build(ChatPolicy, settings, build(TransformersChat, settings, model))
    check_empty(settings, f"transformers:{model}", TransformersChat, ChatPolicy)
    return made


def verifier(name: str) -> Verifier:
    """``"transformers:MODEL?as=ROLE&settings"`` as a verifier.

    as=prm       a process reward model with a token-classification head (the default)
    as=critic    an LLM critic that scores
    as=vote      an LLM that votes among candidates
    as=pairwise  an LLM that compares candidates in pairs
    """
    model, settings = read_name(name)
    role = settings.pop("as", "prm")
    kinds: tuple[Any, ...]
    if role == "prm":
        kinds, made = (TransformersPRM,), build(TransformersPRM, settings, model)
    elif role in CRITICS:
        kinds = (TransformersChat, CRITICS[role])
        made = build(CRITICS[role], settings, build(TransformersChat, settings, model))
    else:
        raise ConfigurationError(f"as must be one of {', '.join(ROLES)}; got {role!r}")
    check_empty(settings, f"transformers:{model}?as={role}", *kinds, more=("as",))
    return made


def learner(name: str) -> TransformersLearner:
    """``"transformers:MODEL?problems=FILE&settings"`` as a learner: its settings, and those of the policy."""
    model, settings = read_name(name)
    if "problems" not in settings:
        raise ConfigurationError(f'what is to be learned on? "transformers:{model}?problems=FILE", with gold answers')
    given = dict(settings)
    build(ChatPolicy, settings, build(TransformersChat, settings, model))
    own = {name: settings.pop(name) for name in ("problems", "prm", "valid", "test", "format") if name in settings}
    check_empty(settings, f"transformers:{model}", TransformersChat, ChatPolicy, TransformersLearner)
    return TransformersLearner(model, **own, settings={name: given[name] for name in given if name not in own})
