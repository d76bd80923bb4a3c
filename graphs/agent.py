"""An agent with a calculator that searches over its turns, configured from the environment; offline by default.

O1_REASON_POLICY        "embedded" (the default), or a chat model with tools, e.g. "langchain:openai:gpt-5-mini"
O1_REASON_VERIFIER      an adapter that scores turns, or "none"; default "embedded:turns" with the embedded model
O1_REASON_STRATEGY      e.g. "best_of_n" or "self_consistency"; by default a vote of 8 turns, weighted by their scores
O1_REASON_MAX_TOKENS, O1_REASON_MAX_CALLS, O1_REASON_MAX_SECONDS, O1_REASON_MAX_USD
                        of one run of the agent; unlimited by default. Beyond them it goes on without search
"""

from os import environ
from typing import Any

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.tools import tool
from o1_reason_embedded import EmbeddedChatModel

from o1_reason import BestOfN, ConfigurationError, ReasoningMiddleware
from o1_reason.settings import from_environment
from o1_reason.tool_steps.builtin import calculate as value_of


@tool
def calculate(expression: str) -> str:
    """The exact value of an arithmetic expression of numbers, + - * / and brackets."""
    try:
        return value_of(expression)
    except ValueError as error:
        return f"error: {error}"


settings: Any = from_environment(environ)
policy = settings["policy"]
if policy != "embedded" and not policy.startswith("langchain:"):
    raise ConfigurationError(f'O1_REASON_POLICY is {policy!r}: an agent takes "embedded" or "langchain:PROVIDER:MODEL"')
verifier = environ.get("O1_REASON_VERIFIER") or ("embedded:turns" if policy == "embedded" else "none")
middleware = ReasoningMiddleware(
    None if verifier == "none" else verifier,
    strategy=environ.get("O1_REASON_STRATEGY") or BestOfN(8, vote="weighted"),
    run_budget=settings["budget"],
)
model = EmbeddedChatModel() if policy == "embedded" else init_chat_model(policy.removeprefix("langchain:"))
graph = create_agent(model, [calculate], middleware=[middleware], name="agent")
