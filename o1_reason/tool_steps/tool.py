"""A tool as the search sees it: how it is called, and whether it may be called on branches that come to nothing."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.tools import tool as langchain_tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Tool:
    """What a policy may call.

    parameters  JSON schema of the arguments
    run         from arguments to what the tool says; what it raises is told to the model
    pure        it changes nothing, so that any branch of a search may call it, and its result may be kept. A tool that
                is not runs once, after the path that calls it has been chosen
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[[Mapping[str, Any]], Awaitable[str]]
    pure: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        """As chat completions have it."""
        told = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": told}


def pure(given: Any) -> Tool:
    """Declare that a tool (`as_tool`) has no effects: looking up, reading, calculating."""
    return replace(as_tool(given), pure=True)


def as_tool(given: Any) -> Tool:
    """A `Tool` as it is; a LangChain tool, or a documented function, as one with effects unless it says otherwise.

    A LangChain tool says so by ``metadata={"pure": True}``. Raises ConfigurationError for anything else.
    """
    if isinstance(given, Tool):
        return given
    if inspect.isfunction(given):
        try:
            given = langchain_tool(given)
        except ValueError as error:
            raise ConfigurationError(f"{given.__name__} cannot be a tool: {error}") from error
    if not isinstance(given, BaseTool):
        raise ConfigurationError(f"a tool is a LangChain tool, a function with a docstring, or a Tool; got {given!r}")
    told = convert_to_openai_tool(given)["function"]
    harmless = bool((given.metadata or {}).get("pure"))
    return Tool(given.name, told.get("description", ""), told.get("parameters", {}), _runner(given), harmless)


def _runner(tool: BaseTool) -> Callable[[Mapping[str, Any]], Awaitable[str]]:
    async def run(arguments: Mapping[str, Any]) -> str:
        call = {"name": tool.name, "args": dict(arguments), "id": "call", "type": "tool_call"}
        said = await tool.ainvoke(call)
        if isinstance(said, ToolMessage):
            return str(said.text)
        return said if isinstance(said, str) else json.dumps(said, default=str)

    return run
