"""A policy whose steps may call tools."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..chat import Chat, Message, Reply, Sampling
from ..chat_policy import NEXT, conversation, find_answer
from ..errors import ConfigurationError
from ..mdp import Proposals, State, Step, ToolCall, Usage
from ..resolve import resolve_policy
from ..together import together
from .tool import as_tool

INSTRUCTIONS = (
    "Solve the problem together with me, one step at a time. In each of your turns either call tools, or write only "
    "the next step, one short paragraph, and then stop and wait. Use a tool wherever it knows better than you. When "
    'the problem is solved, write a turn that reads "Answer: " and then nothing but the final answer.'
)
_CALLS = "tool calls\x00"  # keys of steps that wait for tools begin with it; no answer's key does


class ToolPolicy:
    """pi(a|s) by a chat model that calls tools, turn by turn: a step is a turn, and what its tools said.

    Pure tools run as soon as a candidate calls them, on every branch. Any other call ends its candidate: equal ones
    vote together, a verifier scores them before anything has happened, and only on the path that is chosen do they
    run, once, by `act`; then the search goes on from what they said.

    model         a name such as "openai:gpt-5-mini", a LangChain chat model, a `ChatPolicy` or a `Chat`
    tools         LangChain tools, documented functions, `Tool`s; see `pure`
    turn_tokens   limit on what one turn generates
    temperature   used where a strategy asks for none; None leaves it to the model
    tool_seconds  after which a call has failed; the model is told so, as of all that a tool raises
    instructions  system message in place of the built-in one; "" for none at all
    extract       the answer that a state ends with, None where it is not finished

    Raises ConfigurationError for a model that is not behind a chat, and for tools that cannot work.
    """

    def __init__(
        self,
        model: Any,
        tools: Sequence[Any],
        *,
        turn_tokens: int = 1024,
        temperature: float | None = 0.8,
        tool_seconds: float = 60.0,
        instructions: str | None = None,
        extract: Callable[[State], str | None] = find_answer,
    ) -> None:
        self.chat = _chat_of(model)
        self.tools = {tool.name: tool for tool in map(as_tool, tools)}
        if not tools or len(self.tools) < len(tools):
            raise ConfigurationError("a policy with tools needs a tool, and each under a name of its own")
        if turn_tokens < 1 or not tool_seconds > 0 or not (temperature is None or temperature >= 0):
            raise ConfigurationError("turn_tokens and tool_seconds must be above 0, temperature at least 0")
        self.turn_tokens = turn_tokens
        self.temperature = temperature
        self.tool_seconds = tool_seconds
        self.instructions = INSTRUCTIONS if instructions is None else instructions
        self.extract = extract
        self._specs = tuple(tool.spec for tool in self.tools.values())

    @property
    def identity(self) -> str:
        tools = json.dumps([self._specs, [tool.pure for tool in self.tools.values()]], sort_keys=True)
        settings = (self.turn_tokens, self.temperature, self.instructions, self.extract.__qualname__)
        return f"tools({self.chat.identity})/{settings!r}/{hashlib.sha256(tools.encode()).hexdigest()[:16]}"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """The most a call costs; what tools spend is their own business."""
        return self.chat.bound(self._messages(state), self._sampling(state, n, None, None))

    async def propose(
        self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None, seed: int | None = None
    ) -> Proposals:
        """Candidates of one turn each, whatever `max_steps`. Raises what `Chat.complete` raises."""
        if state.steps and state.steps[-1].terminal:
            return Proposals(())
        replies, usage = await self.chat.complete(
            self._messages(state), self._sampling(state, n, temperature, seed)
        )  # fmt: skip
        steps = await together(self._step(state, reply) for reply in replies)
        return Proposals(tuple((step,) for step in steps if step), usage)

    async def act(self, state: State, refusal: str | None) -> Step:
        """The last step of `state`, its tools run one after the other; with a `refusal`, that in place of a result."""
        step, calls = state.steps[-1], []
        said = step.text.removesuffix(_shown(step.calls)).rstrip("\n")
        for call in step.calls:
            if call.result is None:
                call = replace(call, result=await self._run(call) if refusal is None else refusal)
            calls.append(call)
        return replace(step, text=_text(said, calls), calls=tuple(calls))

    def _sampling(self, state: State, n: int, temperature: float | None, seed: int | None) -> Sampling:
        return Sampling(
            n=n,
            max_tokens=self.turn_tokens,
            temperature=self.temperature if temperature is None else temperature,
            seed=seed,
            tools=self._specs,
            cache_key=hashlib.sha256(f"{state.question}\x1f{state.context}".encode()).hexdigest()[:32],
        )

    def _messages(self, state: State) -> list[Message]:
        messages = conversation(state, self.instructions)
        for step in state.steps:
            messages += _turn(step) if step.calls else [{"role": "assistant", "content": step.text}, _next()]
        return messages

    async def _step(self, state: State, reply: Reply) -> Step | None:
        """A turn as a step; None for one that is no candidate: empty, withheld, or cut within a call."""
        said = reply.text.strip()
        if reply.finish == "filter" or not (said or reply.calls) or (reply.calls and reply.finish == "length"):
            return None
        if reply.calls:
            calls = await together(self._called(call) for call in reply.calls)
            step = Step(_text(said, calls), logprob=reply.logprob, tokens=reply.tokens, calls=tuple(calls))
            if not step.pending:
                return step
            key = _CALLS + json.dumps([[call.name, _canonical(call.arguments)] for call in calls])
            return replace(step, terminal=True, answer=_shown(calls), key=key)
        step = Step(said, logprob=reply.logprob, tokens=reply.tokens)
        answer = None if reply.finish == "length" else self.extract(state + step)
        return replace(step, terminal=answer is not None, answer=answer)

    async def _called(self, call: ToolCall) -> ToolCall:
        """The call with its result, unless its tool has effects."""
        if call.name not in self.tools:
            result = f"error: there is no tool {call.name!r}; there are: {', '.join(self.tools)}"
        elif _arguments(call.arguments) is None:
            result = "error: the arguments are no JSON object"
        elif self.tools[call.name].pure:
            result = await self._run(call)
        else:
            return call
        return replace(call, result=result)

    async def _run(self, call: ToolCall) -> str:
        arguments = _arguments(call.arguments)
        assert arguments is not None
        try:
            async with asyncio.timeout(self.tool_seconds):
                return str(await self.tools[call.name].run(arguments))
        except TimeoutError:
            return f"error: no result within {self.tool_seconds:g} seconds"
        except Exception as error:  # whatever it is, the model may find another way
            return f"error: {type(error).__name__}: {error}"


def _chat_of(model: Any) -> Chat:
    if callable(getattr(model, "complete", None)):
        return model
    chat = getattr(resolve_policy(model), "chat", None)
    if chat is None:
        raise ConfigurationError(
            f"tools need a chat model that calls them, and {model!r} is none: give a LangChain chat model, or a name "
            'such as "openai:gpt-5-mini"'
        )
    return chat


def _next() -> Message:
    return {"role": "user", "content": NEXT}


def _turn(step: Step) -> list[Message]:
    """A step that calls tools, as the messages it was: the call, and what the tools said."""
    said = step.text.removesuffix(_shown(step.calls)).strip()
    ids = [call.id or f"call_{i}" for i, call in enumerate(step.calls)]
    asked = [
        {"id": id, "type": "function", "function": {"name": call.name, "arguments": _sendable(call.arguments)}}
        for id, call in zip(ids, step.calls, strict=True)
    ]
    told = [
        {"role": "tool", "tool_call_id": id, "content": call.result or ""}
        for id, call in zip(ids, step.calls, strict=True)
    ]
    return [{"role": "assistant", "content": said or None, "tool_calls": asked}, *told]


def _text(said: str, calls: Sequence[ToolCall]) -> str:
    return f"{said}\n{_shown(calls)}" if said else _shown(calls)


def _shown(calls: Sequence[ToolCall]) -> str:
    """Calls and results as a verifier, and a person, reads them."""
    return "\n".join(
        f"{call.name}({_canonical(call.arguments)})" + ("" if call.result is None else f" -> {call.result}")
        for call in calls
    )


def _arguments(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _sendable(arguments: str) -> str:
    """Servers refuse a history with arguments that are no JSON."""
    return arguments if arguments and _arguments(arguments) is not None else "{}"


def _canonical(arguments: str) -> str:
    found = _arguments(arguments)
    return arguments if found is None else json.dumps(found, sort_keys=True, ensure_ascii=False)
