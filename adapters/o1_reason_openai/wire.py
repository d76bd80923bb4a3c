"""Replies as they come over the wire: chunks of a stream, or a whole one, of chat or raw completions, put together.

Servers differ: some leave the stop string in the text, some answer raw completions with chat's log-probabilities,
some send no usage, some go on past a stop string. What is put together here is the same for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from o1_reason.chat import Finish, Reply
from o1_reason.mdp import Usage


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

    def take(self, data: Mapping[str, Any]) -> None:
        """A choice of a chunk, or of a whole reply."""
        part = data.get("delta") or data.get("message") or data
        piece = part.get("content") if part is not data else data.get("text")
        if isinstance(piece, str):
            self.text += piece
        self.refusal += part.get("refusal") or ""
        self.chunks += bool(piece or part.get("reasoning_content") or part.get("reasoning"))
        self.finish = data.get("finish_reason") or self.finish
        if "stop_reason" in data:
            self.told = True
            self.stop_reason = data["stop_reason"] if data["stop_reason"] is not None else self.stop_reason
        self.tokens += _logprobs(data.get("logprobs"))

    def cut(self, stop: Sequence[str], lenient: bool) -> int | None:
        """Where the first stop string begins, if there is one; `lenient`: those before any text do not count."""
        start = len(self.text) - len(self.text.lstrip()) if lenient else 0
        found = [at for at in (self.text.find(word, start) for word in stop) if at >= 0]
        return min(found, default=None)

    def reply(self, stop: Sequence[str], lenient: bool, tokens: int) -> Reply:
        """The finished reply; `tokens` were generated for it."""
        at = self.cut(stop, lenient)
        text = self.text if at is None else self.text[:at]
        seen, kept = 0, 0
        while kept < len(self.tokens) and seen < len(text):
            seen += len(self.tokens[kept][0])
            kept += 1
        used = self.tokens[:kept]
        return Reply(
            text,
            self._finish(stop, at is not None),
            tokens,
            sum(logprob for _, logprob, _ in used) / kept if kept else None,
            tuple(top for _, _, top in used if top),
            self.refusal or None,
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
    """What one request brought so far."""

    choices: dict[int, Choice] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None  # the server's, of the whole or of what came so far

    def take(self, data: Mapping[str, Any]) -> None:
        """A chunk, or a whole reply."""
        for choice in data.get("choices") or ():
            self.choices.setdefault(choice.get("index") or 0, Choice()).take(choice)
        if data.get("usage"):
            self.usage = data["usage"]

    @property
    def complete(self) -> bool:
        """Every choice has come to its end."""
        return bool(self.choices) and all(choice.finish for choice in self.choices.values())

    def generated(self) -> int:
        """Completion tokens, as the server counts them, or else as many as came."""
        if self.usage is not None and self.usage.get("completion_tokens") is not None:
            return int(self.usage["completion_tokens"])
        return sum(len(choice.tokens) or choice.chunks for choice in self.choices.values())

    def shares(self) -> list[int]:
        """The completion tokens of each choice, in their order; servers only tell the sum."""
        parts = [len(c.tokens) or c.chunks or 1 for _, c in sorted(self.choices.items())]
        whole, total = self.generated(), sum(parts)
        if len(parts) == 1:
            return [whole]
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
                {top["token"]: top["logprob"] for top in entry.get("top_logprobs") or ()},
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


def cached_tokens(usage: Mapping[str, Any] | None) -> int:
    """Prompt tokens that the server had in its prefix cache."""
    details = (usage or {}).get("prompt_tokens_details") or {}
    return int(details.get("cached_tokens") or (usage or {}).get("prompt_cache_hit_tokens") or 0)
