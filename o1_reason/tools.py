"""A tool for agents that decide by themselves when to think."""

from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from .budget import Budget
from .driver import search
from .errors import ConfigurationError
from .loop import Loop
from .messages import usage_data
from .parts import resolve_parts
from .result import Result

DESCRIPTION = (
    "Think hard about one question. Several ways of reasoning are tried, each step is scored, and the best answer "
    "comes back with a confidence between 0 and 1. Use it for problems that need several steps and have a definite "
    "answer. State the question in full: nothing else of the conversation is seen."
)


def reasoning_tool(
    policy: Any,
    verifier: Any = None,
    *,
    strategy: Any = "beam",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    seed: int = 0,
    ledger: Any = None,
    name: str = "reason",
    description: str = DESCRIPTION,
) -> BaseTool:
    """A LangChain tool with one argument, `question`, that answers by a search.

    Arguments are those of `search`. The model reads the answer and how sure it is; the message's artifact holds
    ``answer``, ``confidence``, ``stop``, ``reasoning``, ``ranking`` and ``usage`` in plain JSON types. A question that
    the policy cannot take comes back to the model as a tool message with status "error". Models that failed raise
    PolicyError or VerifierError. Cancelling a call cancels its search.

    Raises ConfigurationError for what cannot work.
    """
    parts = resolve_parts(policy, verifier, strategy, ledger)

    async def think(question: str) -> tuple[str, dict[str, Any]]:
        try:
            result = await search(question, *parts, budget, seed=seed, ledger=ledger)
        except ConfigurationError as error:
            raise ToolException(f"{str(error).rstrip('.')}. Ask in another way, or go on without this tool.") from error
        return _said(result), _artifact(result)

    def wait(question: str) -> tuple[str, dict[str, Any]]:
        with Loop() as loop:
            return loop.run(think(question))

    return StructuredTool.from_function(
        func=wait,
        coroutine=think,
        name=name,
        description=description,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _said(result: Result) -> str:
    if result.answer is None:
        return f"No answer was found ({result.stop}). Ask a smaller question, or go on without this tool."
    sure = "" if result.confidence is None else f" (confidence {result.confidence:.2f})"
    return f"{result.answer}{sure}"


def _artifact(result: Result) -> dict[str, Any]:
    return {
        "answer": result.answer,
        "confidence": result.confidence,
        "stop": result.stop,
        "reasoning": result.text,
        "ranking": [list(entry) for entry in result.ranking],
        "usage": usage_data(result),
    }
