"""The answer of a search in the form of a JSON schema."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown

from .budget import Budget
from .chat import Chat, Message, Sampling
from .chat_policy import conversation
from .errors import PolicyError
from .mdp import Usage
from .protocols import Policy
from .result import Result
from .turns import call_model, model_of

FORM = "Now give the final answer as one JSON object of this JSON schema, and write nothing else:\n"


def with_room(budget: Budget, policy: Policy) -> Budget:
    """`budget` without the one call that writes the answer down, if the policy has a chat model for it."""
    if budget.max_calls is None or getattr(policy, "chat", None) is None:
        return budget
    return replace(budget, max_calls=max(0, budget.max_calls - 1))


async def in_form(result: Result, policy: Policy, schema: Mapping[str, Any], budget: Budget) -> tuple[str, Usage]:
    """The answer as the text of a JSON object that has what `schema` requires, and what writing it cost.

    An answer that is such an object already stays as it is. Otherwise the policy's own chat model writes it, given the
    question and the chosen reasoning, in one more call after the search. Raises PolicyError where there is no such
    model, the budget has nothing left for it, or what it wrote does not fit.
    """
    ready = _fitting(result.answer or "", schema)
    if ready is not None:
        return ready, Usage()
    chat: Chat | None = getattr(policy, "chat", None)
    if chat is None:
        raise PolicyError(
            f"the answer {result.answer!r} is no JSON object of the schema, and {type(policy).__name__} has no "
            "chat model that could write it as one: give a chat model as policy, or use no schema"
        )
    messages = _asking(result, schema)
    sampling = Sampling(max_tokens=getattr(policy, "solution_tokens", None), temperature=0.0, schema=schema)
    _check_room(result.usage, chat.bound(messages, sampling), budget)
    text, usage = await _written(chat, policy, messages, sampling)
    fitting = _fitting(text, schema)
    if fitting is None:
        raise PolicyError(
            f"the model did not keep to the schema: {text[:200]!r}; give a model that can, or a simpler schema"
        )
    return fitting, usage


def _asking(result: Result, schema: Mapping[str, Any]) -> list[Message]:
    messages = conversation(result.tree.state(0), "")
    if result.text:
        messages.append({"role": "assistant", "content": result.text})
    form = FORM + json.dumps(schema, ensure_ascii=False)
    if messages[-1]["role"] == "user" and isinstance(messages[-1]["content"], str):
        messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n\n{form}"}
    else:
        messages.append({"role": "user", "content": form})
    return messages


def _check_room(spent: Usage, bound: Usage, budget: Budget) -> None:
    calls, tokens, usd = budget.max_calls, budget.max_tokens, budget.max_usd
    if (
        (calls is not None and spent.calls + 1 > calls)
        or (tokens is not None and spent.tokens + bound.tokens > tokens)
        or (usd is not None and (spent.cost_usd or 0.0) + (bound.cost_usd or 0.0) > usd)
    ):
        raise PolicyError("the search left nothing of the budget to write the answer as JSON: give it a larger budget")


async def _written(chat: Chat, policy: Policy, messages: list[Message], sampling: Sampling) -> tuple[str, Usage]:
    """By the provider's own way to structured output where LangChain knows one, else by a schema in the request."""
    found = model_of(policy)
    if found is not None and sampling.schema is not None:
        try:
            native: Any = found[0].with_structured_output(dict(sampling.schema), include_raw=True)
        except NotImplementedError:
            native = None
        if native is not None:
            parsed: list[Any] = []

            async def call(config: Any) -> AIMessage:
                outcome = await native.ainvoke(convert_to_messages(messages), config)
                parsed.append(outcome["parsed"])
                return outcome["raw"]

            raw, usage = await call_model(chat, call)
            return json.dumps(parsed[0], ensure_ascii=False) if parsed[0] else str(raw.text), usage
    strict = convert_to_json_schema(dict(sampling.schema or {}), strict=True)
    replies, usage = await chat.complete(messages, replace(sampling, schema=strict))
    return (replies[0].text if replies else ""), usage


def _fitting(text: str, schema: Mapping[str, Any]) -> str | None:
    try:
        found = parse_json_markdown(text, parser=json.loads)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(name in found for name in schema.get("required", ())):
        return None
    return json.dumps(found, ensure_ascii=False)
