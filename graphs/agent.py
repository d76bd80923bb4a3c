"""An agent with a calculator that searches over its turns, configured from the environment; offline by default.

O1_REASON_POLICY        "embedded" (the default), or a chat model with tools, e.g. "langchain:openai:gpt-5-mini"
O1_REASON_VERIFIER      an adapter that scores turns, or "none"; default "embedded:turns" with the embedded model
O1_REASON_STRATEGY      e.g. "best_of_n" or "self_consistency"; by default a vote of 8 turns, weighted by their scores
O1_REASON_MAX_TOKENS, O1_REASON_MAX_CALLS, O1_REASON_MAX_SECONDS, O1_REASON_MAX_USD
                        of one run of the agent; unlimited by default. Beyond them it goes on without search
"""

import ast
import operator
from fractions import Fraction
from os import environ
from typing import Any

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.tools import tool
from o1_reason_embedded import EmbeddedChatModel

from o1_reason import BestOfN, Budget, ConfigurationError, ReasoningMiddleware

_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def _value(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()):
            return Fraction(str(node.value))
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("not an arithmetic expression")


@tool
def calculate(expression: str) -> str:
    """The exact value of an arithmetic expression of numbers, + - * / and brackets."""
    try:
        return str(_value(ast.parse(expression.strip(), mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        return f"error: {error}"


kinds = {"max_tokens": int, "max_calls": int, "max_seconds": float, "max_usd": float}
limits: Any = {name: kind(text) for name, kind in kinds.items() if (text := environ.get(f"O1_REASON_{name.upper()}"))}
policy = environ.get("O1_REASON_POLICY") or "embedded"
if policy != "embedded" and not policy.startswith("langchain:"):
    raise ConfigurationError(f'O1_REASON_POLICY is {policy!r}: an agent takes "embedded" or "langchain:PROVIDER:MODEL"')
verifier = environ.get("O1_REASON_VERIFIER") or ("embedded:turns" if policy == "embedded" else "none")
middleware = ReasoningMiddleware(
    None if verifier == "none" else verifier,
    strategy=environ.get("O1_REASON_STRATEGY") or BestOfN(8, vote="weighted"),
    run_budget=Budget(**limits),
)
model = EmbeddedChatModel() if policy == "embedded" else init_chat_model(policy.removeprefix("langchain:"))
graph = create_agent(model, [calculate], middleware=[middleware], name="agent")
