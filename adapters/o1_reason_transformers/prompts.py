"""A conversation as token ids: the same ones when a policy is searched with and when it is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from o1_reason.chat import Message
from o1_reason.errors import ConfigurationError

_TURN = "\x00"  # stands for an assistant's turn, which a template shows verbatim


def head_ids(tokenizer: Any, messages: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """The conversation up to where the assistant begins. `template` are further variables of the chat template.

    What the assistant has said already is put behind it as text (`text_ids`), not as a message that the template would
    continue: many templates trim messages, and with them the end of a step; so the prompts of a search only ever grow.
    """
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **template)
    except Exception as error:
        raise ConfigurationError(
            f"the chat template of {tokenizer.name_or_path} does not take this conversation: {error}; where it knows "
            'no system message, give instructions=""'
        ) from error
    return text_ids(tokenizer, text)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Text within a turn."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens with which the model ends its turn. `model` is anything with a ``generation_config``, or None."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {found} if isinstance(found, int) else set(found or ())
    return frozenset(ends | ({tokenizer.eos_token_id} - {None}))


def turn_end(tokenizer: Any, ends: frozenset[int], template: Mapping[str, Any]) -> int:
    """The token of `ends` that the chat template puts behind a turn; where it has none, the tokenizer's end of text."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _TURN}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, **template)
    after = text_ids(tokenizer, text.partition(_TURN)[2])
    if after and after[0] in ends:
        return after[0]
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"the tokenizer of {tokenizer.name_or_path} has no token that ends a turn; give one")
    return tokenizer.eos_token_id
