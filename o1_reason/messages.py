"""Between LangChain's messages and a search: the question that messages ask, the message that a result is."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolCall,
    convert_to_messages,
    convert_to_openai_messages,
)

from .errors import ConfigurationError
from .mdp import NOTHING, Usage
from .result import Result

PROVIDER = "o1_reason"
_UNSAID = ("reasoning", "thinking", "tool_call", "tool_call_chunk")  # calls stand in `tool_calls`


def asked(messages: Sequence[Any], question: str | None = None) -> tuple[str, tuple[dict[str, Any], ...]]:
    """Question and context: the last human message's text, unless `question` is given, and all other messages.

    Raises ConfigurationError where there is no question.
    """
    history: list[BaseMessage] = convert_to_messages(messages)
    if question is not None:
        return question, tuple(plain(message) for message in history)
    last = next((i for i in reversed(range(len(history))) if isinstance(history[i], HumanMessage)), None)
    if last is None:
        raise ConfigurationError('the input needs a "question", or "messages" with a human message')
    context = [plain(message) for i, message in enumerate(history) if i != last]
    pictures = [part for part in _parts(history[last]) if part.get("type") != "text"]
    if pictures:  # the question is text; what else it holds stands right before it
        context.append(plain(HumanMessage(content=pictures)))  # type: ignore[arg-type]
    return str(history[last].text), tuple(context)


def plain(message: BaseMessage) -> dict[str, Any]:
    """As chat completions have it, tool calls included; what a model thought aloud in an earlier turn is left out."""
    if isinstance(message.content, list):
        spoken = [part for part in _parts(message) if part.get("type") not in _UNSAID]
        message = message.model_copy(update={"content": spoken or ""})
    written = convert_to_openai_messages(message)
    assert isinstance(written, dict)
    return written


def _parts(message: BaseMessage) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return []
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in message.content]


def not_found(result: Result) -> str:
    """What to say where there is no answer."""
    return f"No answer was found ({result.stop})."


def answered(
    result: Result,
    text: str,
    model_name: str,
    *,
    reasoning: str = "",
    calls: Sequence[ToolCall] = (),
    more: Usage = NOTHING,
) -> AIMessage:
    """A search's message: `reasoning` as a content block, then `text`, then tool calls.

    Its tokens are those of the whole search, and `more`; what the policy generated is the reasoning.
    """
    blocks: list[Any] = [{"type": "reasoning", "reasoning": reasoning}] if reasoning else []
    if text or not calls:
        blocks.append({"type": "text", "text": text})
    blocks += [{"type": "tool_call", "name": call["name"], "args": call["args"], "id": call["id"]} for call in calls]
    total = result.usage + more
    return AIMessage(
        content=blocks,
        tool_calls=list(calls),
        usage_metadata={
            "input_tokens": total.prompt_tokens,
            "output_tokens": total.completion_tokens,
            "total_tokens": total.tokens,
            "output_token_details": {"reasoning": result.policy_usage.completion_tokens},
        },
        response_metadata={"output_version": "v1", "model_provider": PROVIDER, "model_name": model_name},
    )


def usage_data(result: Result, more: Usage = NOTHING) -> dict[str, Any]:
    """Totals, `more` included, and the shares of policy and verifier, in plain JSON types."""
    return {
        **(result.usage + more).to_data(),
        "policy": result.policy_usage.to_data(),
        "verifier": result.verifier_usage.to_data(),
    }
