"""A tiny chat model over the embedded policy: it makes agents work offline."""

import re
import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from o1_reason.chat import find_stop
from o1_reason.errors import ConfigurationError
from o1_reason.loop import Loop
from o1_reason.mdp import NOTHING, State, Step, Usage

from .policy import EmbeddedPolicy
from .puzzle import MOST_NUMBERS, Puzzle, parse

_NUMBER = re.compile(r"\s*(\d+)(?:\.0*)?\s*")
_WRONG = re.compile(r"\b(?:no|not|wrong|incorrect|false|error|invalid|failed)\b|n't\b", re.IGNORECASE)


class EmbeddedChatModel(BaseChatModel):
    """Solves the arithmetic puzzle of the last human message: right about every third time, with no search.

    Without tools it answers with its trace and the expression. With tools it writes the trace and calls one of them
    with the expression: that of `tool_choice`, or else the first that takes one required string. When the tool says
    that this is right, it says so in words. When the tool says that it is wrong, it tries again, and after `attempts`
    calls it gives up. A result that is a number is right if it is the target; one in words is wrong if it says "not",
    "wrong" or the like.

    `usage_metadata` counts what the decoder read and generated; set phrases cost nothing. `temperature` 0 is greedy.
    Calls are repeatable in their order; a call with the option `seed`, by itself.
    """

    temperature: float = 1.0
    seed: int = 0
    attempts: int = 3
    _policy: EmbeddedPolicy = PrivateAttr()

    def __init__(self, **settings: Any) -> None:
        """Raises ConfigurationError for a temperature below 0."""
        super().__init__(**settings)
        self._policy = EmbeddedPolicy(self.temperature, seed=self.seed)
        if self.profile is None:
            self.profile = ModelProfile(tool_calling=True, structured_output=False)

    @property
    def _llm_type(self) -> str:
        return "embedded"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"policy": self._policy.identity, "seed": self.seed, "attempts": self.attempts}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        known = super()._get_ls_params(stop=stop, **kwargs)
        return {"ls_model_name": "embedded", **known, "ls_provider": "o1_reason_embedded"}

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Tools are used if they take one required string."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        with Loop() as loop:
            return loop.run(self._agenerate(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        text, call, usage = await self._turn(messages, kwargs)
        message = AIMessage(
            text[: find_stop(text, stop or ())],
            tool_calls=[call] if call else [],
            usage_metadata={
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
                "total_tokens": usage.tokens,
            },
            response_metadata={"model_name": "embedded", "finish_reason": "tool_calls" if call else "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _turn(self, messages: list[BaseMessage], options: dict[str, Any]) -> tuple[str, ToolCall | None, Usage]:
        """What it says, which tool it calls, and what that cost."""
        asked = max((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), default=None)
        if asked is None:
            return "Ask me for an arithmetic puzzle.", None, NOTHING
        question = str(messages[asked].text)
        try:
            puzzle = parse(question)
        except ConfigurationError as error:
            why, *_ = str(error).split("; the question was")
            return f"I cannot help with that: {why}.", None, NOTHING
        told = [message for message in messages[asked:] if isinstance(message, ToolMessage)]
        tool = _tool(options.get("tools") or [], options.get("tool_choice"))
        if told and _says_right(told[-1], puzzle):
            return f"Solved: {_tried(messages)} = {puzzle.target}.", None, NOTHING
        if told and (tool is None or len(told) >= self.attempts):
            return f"I could not make {puzzle.target}.", None, NOTHING
        steps, usage = await self._sample(question, options)
        if not steps:
            return f"I could not make {puzzle.target}.", None, usage
        trace, answer = "\n".join(step.text for step in steps), steps[-1].answer or ""
        if tool is None:
            return f"{trace}\n\nAnswer: {answer}", None, usage
        name, argument = tool
        call = ToolCall(name=name, args={argument: answer}, id=f"call_{uuid.uuid4().hex}", type="tool_call")
        return trace, call, usage

    async def _sample(self, question: str, options: dict[str, Any]) -> tuple[tuple[Step, ...], Usage]:
        """A whole solution, empty if it came out malformed."""
        proposals = await self._policy.propose(
            State(question), 1, MOST_NUMBERS, temperature=options.get("temperature"), seed=options.get("seed")
        )
        return proposals.candidates[0] if proposals.candidates else (), proposals.usage


def _tool(tools: Sequence[dict[str, Any]], choice: Any) -> tuple[str, str] | None:
    """Name and argument of the tool to call; None where there is none to take an expression."""
    if isinstance(choice, dict):
        choice = choice.get("function", choice).get("name")
    for tool in tools:
        function = tool.get("function", {})
        schema = function.get("parameters", {})
        required = schema.get("required", [])
        named = choice in (None, "auto", "any", "required", True, function.get("name"))
        if named and len(required) == 1 and schema["properties"][required[0]].get("type") == "string":
            return function["name"], required[0]
    return None


def _says_right(result: ToolMessage, puzzle: Puzzle) -> bool:
    text = str(result.text)
    number = _NUMBER.fullmatch(text)
    if number:
        return int(number[1]) == puzzle.target
    return result.status != "error" and not _WRONG.search(text)


def _tried(messages: Sequence[BaseMessage]) -> str:
    """The expression of the last call."""
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    return str(next(iter(calls[-1]["args"].values()), "")) if calls else ""
