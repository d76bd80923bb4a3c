"""A chat model by a few rules, for tests: it can call tools, it counts, and it knows no network."""

import asyncio
import re
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

NUMBER = re.compile(r"-?\d+")
QUOTED = re.compile(r"'([^']+)'")


class Talker(BaseChatModel):
    """Adds up the numbers it is told; calls a tool that is forced on it or that the question names.

    Arguments come from the question: numbers in their order, then what is quoted, then the question itself. `wrong`
    calls, from the first on, answer one too much. `seen` has the messages and the options of every call.
    """

    name_of_model: str = "talker"
    temperature: float | None = None
    max_tokens: int | None = None
    wrong: int = 0
    fail: int = 0
    seconds: float = 0.0
    seen: list[tuple[list[BaseMessage], dict[str, Any]]] = Field(default_factory=list)
    cancelled: list[bool] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "talker"

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        kwargs.pop("ls_structured_output_format", None)
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        raise AssertionError("a search awaits its models")

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.seen.append((messages, {**kwargs, "stop": stop}))
        turn = len(self.seen)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(True)
            raise
        if turn <= self.fail:
            raise RuntimeError("down")
        asked = next((str(message.text) for message in reversed(messages) if message.type == "human"), "")
        question = next((str(m.text) for m in messages[::-1] if m.type == "human" and "Next step" not in m.text), asked)
        tool = self._tool(messages, question, kwargs.get("tools") or [], kwargs.get("tool_choice"))
        call = [] if tool is None else [self._call(tool, question, turn)]
        message = AIMessage(
            "" if call else self._say(messages, question, turn),
            tool_calls=call,
            response_metadata={"model_name": self.name_of_model},
            usage_metadata={"input_tokens": 10, "output_tokens": 3, "total_tokens": 13},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _tool(self, messages: list[BaseMessage], question: str, tools: list[Any], choice: Any) -> Any:
        named = {tool["function"]["name"]: tool["function"] for tool in tools}
        if choice in named:
            return named[choice]
        words = set(re.findall(r"\w+", question.lower()))
        wanted = [tool for name, tool in named.items() if words & {name, "tool", *name.split("_")}]
        if choice == "any":
            return next(iter(wanted or named.values()), None)
        return wanted[0] if wanted and not isinstance(messages[-1], ToolMessage) else None

    def _call(self, tool: Any, question: str, turn: int) -> Any:
        numbers, quoted = NUMBER.findall(question), QUOTED.findall(question)
        arguments: dict[str, Any] = {}
        for name, kind in tool.get("parameters", {}).get("properties", {}).items():
            if kind.get("type") in ("integer", "number"):
                arguments[name] = int(numbers.pop(0)) if numbers else 0
            else:
                arguments[name] = quoted.pop(0) if quoted else question
        if turn <= self.wrong:
            arguments = {name: value + 1 if isinstance(value, int) else value for name, value in arguments.items()}
        return {"name": tool["name"], "args": arguments, "id": f"call_{turn}", "type": "tool_call"}

    def _say(self, messages: list[BaseMessage], question: str, turn: int) -> str:
        if isinstance(messages[-1], ToolMessage):
            return f"The tool says so.\n\nAnswer: {messages[-1].text}"
        numbers = [int(number) for number in NUMBER.findall(question)]
        if not numbers:
            return f"Hello to you who said: {question}"
        return f"I add them up.\n\nAnswer: {sum(numbers) + (turn <= self.wrong)}"
