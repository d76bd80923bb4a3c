"""How critics ask: one question to a chat model, asked again where the reply cannot be read, and what that cost."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ...chat import Chat, Reply, Sampling
from ...errors import ConfigurationError, UnjudgedError
from ...mdp import NOTHING, Score, State, Step, Usage
from ...receipt import more_calls
from .prompts import Prompt
from .replies import UnreadableError

T = TypeVar("T")
_HEAD = 120  # characters of a reply that an error shows
_LETTERS = 4  # a token, about


@dataclass(slots=True)
class Heard(Generic[T]):
    """What a judge said: replies as read, what was wrong with the others, and the cost of all."""

    read: list[T] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    usage: Usage = NOTHING

    def add(self, other: "Heard[T]") -> None:
        self.read += other.read
        self.failed += other.failed
        self.usage += other.usage


class Judge:
    """A chat model and how it is asked. `failures` counts the replies so far that could not be read."""

    def __init__(self, chat: Chat, temperature: float | None, max_tokens: int, retries: int, step_tokens: int) -> None:
        if temperature is not None and not temperature >= 0:
            raise ConfigurationError(f"temperature must be at least 0, or None; got {temperature}")
        if max_tokens < 1 or step_tokens < 1 or retries < 0:
            raise ConfigurationError("max_tokens and step_tokens must be at least 1, retries at least 0")
        self.chat, self.temperature, self.max_tokens, self.retries = chat, temperature, max_tokens, retries
        self.step_tokens = step_tokens
        self.failures = 0

    @property
    def identity(self) -> str:
        return f"{self.chat.identity}, temperature {self.temperature}, {self.max_tokens} tokens, {self.retries} retries"

    async def ask(
        self, prompt: Prompt, words: int, read: Callable[[Reply], T], *, n: int = 1, seed: int = 0
    ) -> Heard[T]:
        """`n` replies to one prompt, read by `read`; of `words` that a verdict can be, the probabilities are asked for.

        For as many as could not be read it asks again, `retries` times, as far as the budget has calls left. `seed`
        tells apart requests that are equal and shall be drawn anew. Raises what the chat raises.
        """
        heard: Heard[T] = Heard()
        for attempt in range(1 + self.retries):
            missing = n - len(heard.read)
            if missing == 0 or (attempt and not more_calls(1)):
                break
            messages = prompt.messages(again=attempt > 0)
            replies, usage = await self.chat.complete(messages, self._sampling(prompt, words, missing, seed))
            heard.usage += usage
            for reply in replies:
                try:
                    heard.read.append(read(reply))
                except UnreadableError as error:
                    heard.failed.append(f"{error}: {reply.refusal or reply.text:.{_HEAD}}")
                    self.failures += 1
        return heard

    def bound(self, prompt: Prompt, words: int, n: int = 1) -> Usage:
        """The most that asking once for `n` replies costs."""
        return self.chat.bound(prompt.messages(), self._sampling(prompt, words, n, 0))

    def guess(self, state: State, n: int, max_steps: int) -> list[State]:
        """`n` continuations of `state`, for bounds."""
        return continuations(state, n, max_steps, self.step_tokens)

    def _sampling(self, prompt: Prompt, words: int, n: int, seed: int) -> Sampling:
        content = f"{prompt.rules}\x1f{prompt.evidence}\x1f{seed}"
        drawn = int.from_bytes(hashlib.sha256(content.encode()).digest()[:4]) >> 1
        return Sampling(
            n=n,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=None if self.temperature == 0 else drawn,
            schema=prompt.schema,
            top_logprobs=min(20, 2 * words + 1),  # 20 is the most that OpenAI and vLLM give
            cache_key=prompt.cache_key,
        )


def continuations(state: State, n: int, max_steps: int, step_tokens: int) -> list[State]:
    """What `n` continuations of `state` may look like: `max_steps` steps more, of about `step_tokens` tokens each."""
    text = "x" * (_LETTERS * step_tokens)
    return [
        State(state.question, (*state.steps, *(Step(f"{i}{text}") for _ in range(max_steps))), state.context)
        for i in range(n)
    ]


def all_judged(scores: Sequence[Score | None], failed: Sequence[str]) -> list[Score]:
    """`scores`, if there is one for each state. Raises UnjudgedError otherwise; `failed` replies were unreadable."""
    judged = [score for score in scores if score is not None]
    if len(judged) < len(scores):
        shown = f"; the last was {failed[-1]!r}" if failed else ""
        raise UnjudgedError(
            f"{len(scores) - len(judged)} of {len(scores)} states got no verdict: {len(failed)} replies of the critic "
            f"could not be read{shown}. Give it more max_tokens or retries, or a model that keeps to a JSON schema",
            scores,
        )
    return judged


def remark(summary: str, critiques: Iterable[str], failed: Sequence[str]) -> str:
    """What `Score.critique` says."""
    first = next((critique for critique in critiques if critique), "")
    parts = [f"{summary}: {first}" if first else summary]
    if failed:
        parts.append(f"{len(failed)} replies could not be read ({failed[-1]})")
    return "; ".join(parts)
