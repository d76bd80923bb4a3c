"""Turns of an agent's model as a policy, drawn through the agent's own handler.

Each is drawn once and can be given out again, so that a first look at a few turns and the search that may follow it
share them.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from .mdp import Proposals, State, Step, Usage
from .receipt import charge
from .tracing import inside
from .tree import Node
from .turns import call_model, step_of

if TYPE_CHECKING:
    from langchain.agents.middleware import ModelRequest, ModelResponse


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What one call brought: a turn, unless it was no candidate, or an error."""

    step: Step | None
    usage: Usage
    error: Exception | None = None


class DrawnTurns:
    """pi over the next turn: one call of `ask` for each candidate, with call options (temperature, seed).

    Only options among `fields` are passed; `temperature` is for candidates whose strategy asks for none; `chat` is the
    adapter whose limit on calls in flight holds. After `rewind`, turns drawn before are given out first, in their
    order and at the price that was paid for them; only then is `ask` called again. What `step_of` refuses is no
    candidate, nor is structured output that was sent back to the model for its mistakes.
    """

    samples_per_call = 1

    def __init__(
        self,
        ask: Callable[[dict[str, Any]], Awaitable["ModelResponse[Any]"]],
        chat: Any,
        fields: Collection[str],
        temperature: float | None = None,
    ) -> None:
        self._ask = ask
        self._chat = chat
        self._fields = fields
        self._temperature = temperature
        self._drawn: list[_Drawn] = []
        self._given = 0
        self._responses: dict[str, ModelResponse[Any]] = {}  # of candidates, by the texts of their steps
        self.others: list[ModelResponse[Any]] = []  # that are no candidates

    def rewind(self) -> None:
        """The next search begins with the turns that were drawn so far."""
        self._given = 0

    def response(self, node: Node) -> "ModelResponse[Any]":
        """What the handler gave for the candidate that became `node`, whole."""
        return self._responses[node.step.text if node.step else ""]

    @property
    def errors(self) -> list[Exception]:
        """What calls raised, in order."""
        return [drawn.error for drawn in self._drawn if drawn.error is not None]

    async def propose(
        self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None, seed: int | None = None
    ) -> Proposals:
        """Raises whatever the handler raises."""
        if state.steps:
            return Proposals(())
        again = self._given < len(self._drawn)
        if not again:
            self._drawn.append(await self._draw(temperature, seed))
        drawn = self._drawn[self._given]
        self._given += 1
        if drawn.error is not None:
            if again:
                charge(drawn.usage)
            raise drawn.error
        return Proposals(((drawn.step,),) if drawn.step else (), drawn.usage)

    async def _draw(self, temperature: float | None, seed: int | None) -> _Drawn:
        wanted = {
            "temperature": self._temperature if temperature is None else temperature,
            "seed": None if seed is None else seed & 0x7FFFFFFF,
        }
        options = {name: value for name, value in wanted.items() if value is not None and name in self._fields}
        responses: list[ModelResponse[Any]] = []

        async def call(config: Any) -> AIMessage:
            responses.append(await inside(config, self._asked, options))
            return message_of(responses[0])

        try:
            message, usage = await call_model(self._chat, call)
        except Exception as error:
            lost = tokens_of(getattr(error, "ai_message", None))  # LangChain's StructuredOutputError has what was said
            charge(lost)
            return _Drawn(None, lost + Usage(calls=1), error)
        step = None if _refused(responses[0]) else step_of(message, usage.completion_tokens)
        if step is None:
            self.others += responses
        else:
            self._responses.setdefault(step.text, responses[0])
        return _Drawn(step, usage)

    async def _asked(self, options: dict[str, Any]) -> "ModelResponse[Any]":
        return await self._ask(options)


def message_of(response: "ModelResponse[Any]") -> AIMessage:
    """What the model said."""
    return next(message for message in response.result if isinstance(message, AIMessage))


def _refused(response: "ModelResponse[Any]") -> bool:
    """Structured output was wanted, did not fit, and the model was told so."""
    told = any(isinstance(message, ToolMessage) for message in response.result)
    return told and response.structured_response is None


def tokens_of(message: AIMessage | None) -> Usage:
    """Prompt and completion tokens of what the model said, as it counts them; no call."""
    told = message.usage_metadata if message else None
    return Usage(0, told["input_tokens"], told["output_tokens"]) if told else Usage()


def summed(heard: Sequence[AIMessage], verifier: Usage) -> UsageMetadata | None:
    """What `heard` and the verifier cost, as a message tells it; None where nothing is known."""
    known = [message.usage_metadata for message in heard]
    if verifier.tokens:
        read, written = verifier.prompt_tokens, verifier.completion_tokens
        known.append(UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written))
    return reduce(add_usage, known) if any(known) else None


class Threads:
    """A synchronous handler, awaited: each call on a thread. Leaving it waits for calls that nobody awaits any more."""

    def __init__(self, handler: Callable[["ModelRequest[Any]"], "ModelResponse[Any]"], most: int) -> None:
        self._handler = handler
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="o1-reason-turn")

    async def __call__(self, request: "ModelRequest[Any]") -> "ModelResponse[Any]":
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(self._handler, request))

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
