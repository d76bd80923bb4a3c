"""A chat model as the search sees it: messages in, replies out. Adapters implement `Chat`; `ChatPolicy`
and the critics in `verifiers` are written against it, so that every adapter prompts, parses and counts alike."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .mdp import ToolCall, Usage

Message = dict[str, Any]  # {"role": ..., "content": ...}, as OpenAI's chat completions have it
Finish = Literal["end", "stop", "length", "filter", "unknown"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are to be drawn. None leaves a setting to the model."""

    n: int = 1  # replies wanted
    max_tokens: int | None = None  # of each reply
    temperature: float | None = None  # 0: greedy
    stop: tuple[str, ...] = ()  # a reply ends before the first of them
    seed: int | None = None  # reply i of a call is drawn with seed + i
    schema: Mapping[str, Any] | None = None  # JSON schema of the reply, held by the model where it can
    logprobs: bool = False  # fill `Reply.logprob` where the model can
    top_logprobs: int = 0  # so many alternatives of each token, where the model gives them
    tools: tuple[Mapping[str, Any], ...] = ()  # that a reply may call, as chat completions have them; never continued
    cache_key: str | None = None  # requests that share a prefix carry the same one, for the provider's prompt cache


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `finish`: "end" the model ended its turn; "stop" a stop string was met; "length" cut by max_tokens;
    "filter" withheld; "unknown" the server says "stop" and not which of the first two."""

    text: str
    finish: Finish = "end"
    tokens: int = 0  # generated for it, reasoning included
    logprob: float | None = None  # mean over its tokens, nats
    top_logprobs: tuple[Mapping[str, float], ...] = ()  # token -> log-probability, per position
    refusal: str | None = None
    calls: tuple[ToolCall, ...] = ()


class Chat(Protocol):
    """A chat model behind an adapter."""

    @property
    def identity(self) -> str:
        """Model, endpoint and settings: the ledger's name for it."""
        ...

    async def complete(
        self, messages: Sequence[Message], sampling: Sampling = ..., prefix: str | None = None
    ) -> tuple[list[Reply], Usage]:
        """Up to `sampling.n` replies. With `prefix` they continue the assistant's text `prefix`, which is not
        repeated; only where `continues()` is true. Raises ModelError or ConfigurationError, never an SDK's own error.
        """
        ...

    async def continues(self) -> bool:
        """Whether the assistant's text can be continued from where it stands."""
        ...

    def bound(self, messages: Sequence[Message], sampling: Sampling, prefix: str | None = None) -> Usage:
        """The most that `complete` costs if every request succeeds at once."""
        ...


def prompt_bytes(messages: Sequence[Message], prefix: str | None, tools: Sequence[Any] = ()) -> int:
    """About how many bytes a prompt has, for estimates of its tokens: what is written, and 16 for each turn's frame."""
    parts = [part for message in messages for part in (message.get("content"), message.get("tool_calls")) if part]
    written = sum(len(json.dumps(part, ensure_ascii=False).encode()) for part in [*parts, *tools])
    return written + len((prefix or "").encode()) + 16 * len(messages)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """How chat completions are told of a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema), "strict": True}}


def without_echo(text: str, start: str | None) -> str:
    """`text` without `start`, the beginning that some servers send back with its continuation."""
    for echo in (start or "", (start or "").strip()):
        if echo and text.lstrip().startswith(echo.lstrip()):
            return text.lstrip()[len(echo.lstrip()) :]
    return text


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string begins that has text before it; None where there is none."""
    start = len(text) - len(text.lstrip())
    return min((at for word in stop if (at := text.find(word, start)) >= 0), default=None)


def covering(tokens: Iterable[str], text: str) -> int:
    """How many of `tokens`, from the first on, make up `text`. White space, which servers trim, does not count."""
    missing = len("".join(text.split()))
    count = 0
    for token in tokens:
        if missing <= 0:
            break
        missing -= len("".join(token.split()))
        count += 1
    return count
