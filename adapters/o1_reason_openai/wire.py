"""Replies as they come over the wire: chunks of a stream, or a whole one, of chat or raw completions, put together.

Servers differ: some leave the stop string in the text, some answer raw completions with chat's log-probabilities,
some send no usage, some go on past a stop string. What is put together here is the same for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from o1_reason.chat import Finish, Reply, covering, find_stop, without_echo
from o1_reason.mdp import ToolCall, Usage


@dataclass(slots=True)
class Choice:
    """One reply in the making."""

    text: str = ""
    refusal: str = ""
    finish: str | None = None
    chunks: int = 0
    told: bool = False  # the server says which stop string it met, if any (vLLM, SGLang)
    stop_reason: Any = None
    tokens: list[tuple[str, float, Mapping[str, float]]] = field(default_factory=list)  # with log-probabilities
    calls: dict[int, list[str]] = field(default_factory=dict)  # of tools, by index: id, name, arguments

    def take(self, data: Mapping[str, Any]) -> None:
        """A choice of a chunk, or of a whole reply."""
        part = data.get("delta") or data.get("message") or data
        piece = part.get("content") if part is not data else data.get("text")
        if isinstance(piece, str):
            self.text += piece
        self.refusal += part.get("refusal") or ""
        for place, call in enumerate(part.get("tool_calls") or ()):
            self._call(call.get("index", place), call)
        self.chunks += bool(piece or part.get("tool_calls") or part.get("reasoning_content") or part.get("reasoning"))
        self.finish = data.get("finish_reason") or self.finish
        if "stop_reason" in data:
            self.told = True
            self.stop_reason = data["stop_reason"] if data["stop_reason"] is not None else self.stop_reason
        self.tokens += _logprobs(data.get("logprobs"))

    def _call(self, index: int, data: Mapping[str, Any]) -> None:
        """A tool call, or a piece of one."""
        call, function = self.calls.setdefault(index, ["", "", ""]), data.get("function") or {}
        call[0] = data.get("id") or call[0]
        call[1] += function.get("name") or ""
        call[2] += function.get("arguments") or ""

    def seen(self) -> int:
        """Tokens that came: those with log-probabilities, or else a token for each chunk."""
        return len(self.tokens) or self.chunks

    def reply(self, stop: Sequence[str], start: str | None, tokens: int) -> Reply:
        """The finished reply, for which `tokens` were generated; `start` is what a server may have sent back."""
        text = without_echo(self.text, start)
        at = find_stop(text, stop)
        text = text if at is None else text[:at]
        kept = covering((token for token, _, _ in self.tokens), text)
        used = self.tokens[:kept]
        return Reply(
            text,
            self._finish(stop, at is not None),
            tokens,
            sum(logprob for _, logprob, _ in used) / kept if kept else None,
            tuple(top for _, _, top in used if top),
            self.refusal or None,
            tuple(ToolCall(name, arguments, id) for _, (id, name, arguments) in sorted(self.calls.items())),
        )

    def _finish(self, stop: Sequence[str], cut: bool) -> Finish:
        if cut:
            return "stop"
        match self.finish:
            case "length":
                return "length"
            case "content_filter":
                return "filter"
        if not stop or (self.told and self.stop_reason is None):
            return "end"
        return "stop" if self.told and isinstance(self.stop_reason, str) else "unknown"


@dataclass(slots=True)
class Answer:
    """What one request brought so far.

    Usage comes in four ways: once, of all replies (OpenAI, vLLM); once for each reply, in chunks without choices
    (llama.cpp); with each chunk, of its reply so far (vLLM's `continuous_usage_stats`); or not at all.
    """

    choices: dict[int, Choice] = field(default_factory=dict)
    totals: list[Mapping[str, Any]] = field(default_factory=list)
    so_far: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, data: Mapping[str, Any]) -> None:
        """A chunk, or a whole reply."""
        choices, usage = data.get("choices") or [], data.get("usage")
        for choice in choices:
            self.choices.setdefault(choice.get("index") or 0, Choice()).take(choice)
        if usage and (not choices or "message" in choices[0] or len(choices) > 1):
            self.totals.append(usage)
        elif usage:
            self.so_far[choices[0].get("index") or 0] = usage

    @property
    def complete(self) -> bool:
        """Every choice has come to its end."""
        return bool(self.choices) and all(choice.finish for choice in self.choices.values())

    def size(self) -> int:
        """Characters of all replies."""
        return sum(len(choice.text) for choice in self.choices.values())

    @property
    def counted(self) -> bool:
        """The server has told what it read and generated."""
        return bool(self.totals or self.so_far)

    def prompt_tokens(self) -> int:
        """Tokens read, 0 where the server does not tell; the prompt of several replies is read once."""
        return max((int(u.get("prompt_tokens") or 0) for u in (*self.totals, *self.so_far.values())), default=0)

    def cached_tokens(self) -> int:
        """Prompt tokens that the server had in its prefix cache."""
        return max((_cached(u) for u in (*self.totals, *self.so_far.values())), default=0)

    def generated(self) -> int:
        """Completion tokens as the server counts them, or else as many as came."""
        seen = sum(choice.seen() for choice in self.choices.values())
        if len(self.totals) == 1:  # some servers count the first of several replies only
            told = int(self.totals[0].get("completion_tokens") or 0)
            return max(told, sum(len(choice.tokens) for choice in self.choices.values()))
        each = self.totals or list(self.so_far.values())
        return sum(int(usage.get("completion_tokens") or 0) for usage in each) if each else seen

    def shares(self) -> list[int]:
        """The completion tokens of each choice, in their order; most servers only tell the sum."""
        parts = [choice.seen() or 1 for _, choice in sorted(self.choices.items())]
        whole, total = self.generated(), sum(parts)
        return [round(whole * part / total) for part in parts]


def _logprobs(data: Any) -> list[tuple[str, float, Mapping[str, float]]]:
    """Of chat's shape ``{"content": [{"token", "logprob", "top_logprobs"}]}`` or of raw completions' three lists."""
    if not isinstance(data, Mapping):
        return []
    if data.get("content"):
        return [
            (
                entry["token"],
                entry["logprob"],
                _with(entry, {top["token"]: top["logprob"] for top in entry.get("top_logprobs") or ()}),
            )
            for entry in data["content"]
        ]
    tokens, logprobs = data.get("tokens") or [], data.get("token_logprobs") or []
    tops = data.get("top_logprobs") or [{}] * len(tokens)
    return [
        (token, logprob, top or {})
        for token, logprob, top in zip(tokens, logprobs, tops, strict=True)
        if logprob is not None
    ]


def _with(drawn: Mapping[str, Any], tops: dict[str, float]) -> dict[str, float]:
    """The alternatives, with the token that was drawn, which may be none of the likeliest."""
    return {drawn["token"]: drawn["logprob"], **tops} if tops else tops


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens: read, generated, read from the provider's prompt cache."""

    prompt: float
    completion: float
    cached: float | None = None

    def of(self, prompt: int, completion: int, cached: int = 0) -> float:
        cheap = self.prompt if self.cached is None else self.cached
        return ((prompt - cached) * self.prompt + cached * cheap + completion * self.completion) / 1e6


def usage_of(prompt: int, completion: int, cached: int, price: Price | None) -> Usage:
    """Tokens of a request, without the call itself."""
    return Usage(0, prompt, completion, None if price is None else price.of(prompt, completion, cached))


def _cached(usage: Mapping[str, Any]) -> int:
    details = usage.get("prompt_tokens_details") or {}
    return int(details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0)
