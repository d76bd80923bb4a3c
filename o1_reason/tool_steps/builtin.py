"""Tools without effects that come along: a calculator, and Python in a sandbox."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from ..sandbox import Sandbox, last_words
from .tool import Tool

Number = int | float | Fraction
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}  # fmt: skip
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "log10": math.log10, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "floor": math.floor, "ceil": math.ceil, "abs": abs, "round": round, "min": min, "max": max,
    "gcd": math.gcd, "comb": math.comb, "factorial": math.factorial,
}  # fmt: skip
_CONSTANTS = {"pi": math.pi, "e": math.e}
_LARGEST = 10**400  # beyond it an integer is refused: a tower of powers would take for ever


def calculator() -> Tool:
    """Arithmetic, exact where it can be: fractions stay fractions."""

    async def run(arguments: Mapping[str, Any]) -> str:
        return calculate(str(arguments["expression"]))

    parameters = {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "for example (3 + 4) * 2 / 7"}},
        "required": ["expression"],
    }
    names = ", ".join([*_FUNCTIONS, *_CONSTANTS])
    return Tool("calculator", f"Evaluates + - * / // % ** and {names}.", parameters, run, pure=True)


def calculate(expression: str) -> str:
    """The value of an arithmetic expression. Raises ValueError for what is none, or is too large."""
    try:
        value = _value(ast.parse(expression.strip().replace("^", "**"), mode="eval").body)
    except (SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError, KeyError) as error:
        raise ValueError(f"{expression!r} cannot be calculated: {error}") from error
    if isinstance(value, Fraction) and value.denominator == 1:
        return str(value.numerator)
    return f"{value} = {float(value):.10g}" if isinstance(value, Fraction) else str(value)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool() | complex() | str() | bytes()):
            raise ValueError(f"{node.value!r} is no number")
        case ast.Constant(value=int() | float()):
            return node.value  # type: ignore[return-value]
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand)
        case ast.UnaryOp(op=ast.UAdd()):
            return _value(node.operand)
        case ast.BinOp():
            return _checked(_combined(node.op, _value(node.left), _value(node.right)))
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            given = [_value(argument) for argument in node.args]
            if name in ("factorial", "comb") and any(abs(n) > 200 for n in given):
                raise ValueError(f"{name} of more than 200 is too large")
            return _checked(_FUNCTIONS[name](*given))
    raise ValueError(f"{ast.unparse(node)} is no arithmetic")


def _combined(op: ast.operator, a: Number, b: Number) -> Number:
    if isinstance(op, ast.Div):
        return a / b if isinstance(a, float) or isinstance(b, float) else Fraction(a) / Fraction(b)
    if isinstance(op, ast.Pow):
        if abs(b) > 1000:
            raise ValueError("an exponent of more than 1000 is too large")
        whole = isinstance(b, int) and b >= 0
        return a**b if whole or isinstance(a, float) else Fraction(a) ** b  # type: ignore[return-value]
    if type(op) not in _BINARY:
        raise ValueError(f"{type(op).__name__} is no arithmetic")
    return _BINARY[type(op)](a, b)


def _checked(value: Number) -> Number:
    if isinstance(value, complex):
        raise ValueError("the value is no real number")
    if isinstance(value, int | Fraction) and abs(value) > _LARGEST:
        raise ValueError("the value is too large")
    return value


def python_tool(sandbox: Sandbox | None = None) -> Tool:
    """Python, the standard library, no network and no files: what a program prints. Needs a sandbox on this machine."""
    box = sandbox or Sandbox()

    async def run(arguments: Mapping[str, Any]) -> str:
        ran = await box.run(str(arguments["code"]))
        said = ran.stdout.decode(errors="replace").strip()
        if ran.ended != "exit":
            return f"{said}\nthe program was stopped: too much {ran.ended}".strip()
        if ran.status:
            return f"{said}\n{last_words(ran.stderr)}".strip()
        return said or "the program printed nothing; print what you want to know"

    parameters = {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "a whole program that prints its result"}},
        "required": ["code"],
    }
    return Tool("python", "Runs a Python program and returns what it prints.", parameters, run, pure=True)
