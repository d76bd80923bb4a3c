"""Whether and how a server continues the assistant's text: asked of the server, never guessed from its address.

The evidence does not depend on what the model says. A server that continues a message renders neither the end of that
turn nor the head of a new one, so its own count of prompt tokens is lower than for the same messages as closed turns.
A server that continues whatever the assistant said last gives itself away by sending the beginning back.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from o1_reason.chat import Message

Prefix = Literal["continue", "prefix", "trailing", "raw", "none"]
START = "one two Qz7"
CONTINUE: Mapping[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}


@dataclass(frozen=True, slots=True)
class Heard:
    """What a server made of a probe: its reply, and how many tokens it read."""

    text: str
    prompt_tokens: int | None


Ask = Callable[[Sequence[Message], Mapping[str, Any]], Awaitable[Heard | None]]  # None: refused


def started(text: str, mode: Prefix) -> tuple[Message, Mapping[str, Any]]:
    """The assistant's message that is to be continued, and what the request needs beside it."""
    message: Message = {"role": "assistant", "content": text}
    if mode == "prefix":
        message["prefix"] = True
    return message, CONTINUE if mode == "continue" else {}


async def find_prefix(ask: Ask) -> tuple[Prefix, bool]:
    """The way in which the server continues a message, and whether it loses white space at the message's end."""
    question: Message = {"role": "user", "content": "Count."}
    closed = await ask([question, started(START, "none")[0]], {})
    if closed is not None and closed.text.lstrip().startswith(START):
        return "trailing", False
    for mode in ("continue", "prefix"):
        message, extra = started(START, mode)
        heard = await ask([question, message], extra)
        if heard is not None and _fewer(heard, closed):
            message, _ = started(START + "\n\n", mode)
            spaced = await ask([question, message], extra)
            return mode, spaced is not None and spaced.prompt_tokens == heard.prompt_tokens
    return "none", False


def _fewer(heard: Heard, closed: Heard | None) -> bool:
    if closed is None or closed.prompt_tokens is None or heard.prompt_tokens is None:
        return False
    return heard.prompt_tokens < closed.prompt_tokens
