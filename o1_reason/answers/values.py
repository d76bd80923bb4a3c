r"""Keys of expressions, by their values. Only `mathworker` imports this: it is heavy, and may never come to an end.

An expression is evaluated at 120 digits: exactly where it is rational, at fixed
pseudo-random points where it has unknowns. Expressions that agree there are the same, but for a chance far below that
of a hardware fault (Schwartz, JACM 27(4), 1980). Unknowns are real: where an expression without i has no real value,
it has none.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import mpmath
import sympy

from .normal import LONGEST_NUMBER
from .parsing import parse

DIGITS = 120  # of the arithmetic
SHOWN = 50  # of a key; what lies between absorbs cancellation
EPSILON = mpmath.mpf(10) ** -90  # what is this small beside the terms of a sum is 0
EXACT_BITS = 1 << 16  # of a numerator or denominator; beyond it, floating point
DENOMINATOR = 10**12  # a number within 60 digits of a fraction with a smaller one is that fraction
POINTS = 8

Number = Any  # Fraction, mpf or mpc
Point = dict[str, Fraction]

_SYMBOLIC = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)


class UndefinedError(ArithmeticError):
    """No value there, or none that this module knows how to find."""


class Values:
    """Keys by value: the `Evaluator` of `structure.key`."""

    def __init__(self) -> None:
        mpmath.mp.dps = DIGITS

    def expression(self, text: str) -> str | None:
        values, unknowns = _values(parse(text))
        known = [value for value in values if value is not None]
        if not known:
            return None
        if not unknowns or (len(known) > 2 and len({_rounded(value) for value in known}) == 1):
            return _constant(known[0])
        return _name(values, unknowns) or _digest(values)

    def difference(self, left: str, right: str, *, directed: bool) -> str | None:
        (lefts, names), (rights, others) = _values(parse(left)), _values(parse(right))
        if not lefts or not rights or not names | others:
            return None
        lefts, rights = (side * (POINTS // len(side)) for side in (lefts, rights))
        values = [None if a is None or b is None else _add([a, -b]) for a, b in zip(lefts, rights, strict=True)]
        unit = next((value for value in values if value), None)
        if unit is None:
            return "0" if any(value is not None for value in values) else None
        scale = _power([abs(unit) if directed else unit, Fraction(-1)])
        return _digest([None if value is None else _multiply([value, scale]) for value in values])


def _name(values: Sequence[Number | None], unknowns: set[str]) -> str | None:
    """The unknown that an expression always equals."""
    for name in unknowns:
        if all(value == _coordinate(name, k) for k, value in enumerate(values)):
            return name
    return None


def _values(expression: Any) -> tuple[list[Number | None], set[str]]:
    """The values at the points (at one, if nothing is unknown), None where there is none; what is unknown."""
    if expression is None:
        return [], set()
    if expression.has(*_SYMBOLIC):
        expression = expression.doit()
    names = {symbol.name for symbol in expression.free_symbols}
    names |= {"gamma"} if expression.has(sympy.EulerGamma) else set()  # the parser's reading of \gamma
    real = "i" not in names
    names -= {"i"}
    found: list[Number | None] = []
    for k in range(POINTS if names else 1):
        try:
            value = _value(expression, {name: _coordinate(name, k) for name in names}, real)
        except (ArithmeticError, ValueError, TypeError):
            value = None
        found.append(None if names and real and isinstance(value, mpmath.mpc) else value)
    return found, names


def _coordinate(name: str, k: int) -> Fraction:
    """Of point `k`: small, of either sign, the last two whole."""
    dice = int.from_bytes(hashlib.sha256(f"{name}/{k}".encode()).digest()[:4])
    if k >= POINTS - 2:
        return Fraction(2 + dice % 23)
    low, high = ((0, 1), (1, 3), (-1, 0), (3, 10), (-3, -1), (0, 1))[k]
    return low + (high - low) * Fraction(2 * (dice >> 16) + 1, 1 << 17)


def _value(node: Any, point: Point, real: bool) -> Number:
    """The value of a sympy expression; raises UndefinedError or another ArithmeticError where it has none."""
    if node.is_Rational:
        return Fraction(int(node.p), int(node.q))
    if node.is_Float:
        return Fraction(str(node))  # the decimal that was written, not the nearest binary fraction
    if node.is_Symbol and node.name != "i":
        return point[node.name]
    if node is sympy.EulerGamma:
        return point["gamma"]
    name = type(node).__name__
    if name in _ATOMS:
        return _ATOMS[name]()
    arguments = [_value(argument, point, real) for argument in node.args]
    if name == "Add" and not point and _unseen(arguments):
        raise UndefinedError("2^{10^6} + 1 has the digits of 2^{10^6}")
    if name == "Pow":
        return _power(arguments, real)
    if name not in _FUNCTIONS:
        raise UndefinedError(name)
    return _FUNCTIONS[name](arguments)


def _float(value: Number) -> Number:
    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _bounded(value: Fraction) -> Number:
    big = max(value.numerator.bit_length(), value.denominator.bit_length()) > EXACT_BITS
    return _float(value) if big else value


def _tidy(value: Number, scale: Number) -> Number:
    """Without parts that are nothing but rounding errors; a mpc only if it is not real."""
    if mpmath.isnan(value):
        raise UndefinedError("not a number")
    if mpmath.isinf(value):
        return value
    least = abs(scale) * EPSILON
    re_, im = (part if abs(part) > least else mpmath.mpf(0) for part in (mpmath.re(value), mpmath.im(value)))
    return mpmath.mpc(re_, im) if im else re_ or Fraction(0)


def _add(terms: Sequence[Number]) -> Number:
    if all(isinstance(term, Fraction) for term in terms):
        return _bounded(sum(terms, Fraction(0)))
    floats = [_float(term) for term in terms]
    return _tidy(reduce(lambda a, b: a + b, floats), max(abs(term) for term in floats))


def _unseen(terms: Sequence[Number]) -> bool:
    """Whether a term of an inexact sum is too small to change the digits shown."""
    sizes = [abs(_float(term)) for term in terms if term]
    exact = all(isinstance(term, Fraction) for term in terms)
    return not exact and min(sizes) < max(sizes) * mpmath.mpf(10) ** (5 - SHOWN)


def _multiply(factors: Sequence[Number]) -> Number:
    product: Number = Fraction(1)
    for factor in factors:
        if isinstance(product, Fraction) and isinstance(factor, Fraction):
            product = _bounded(product * factor)
        else:
            product = _float(product) * _float(factor)
            product = _tidy(product, abs(product))
    return product


def _power(arguments: Sequence[Number], real: bool = True) -> Number:
    base, exponent = arguments
    if isinstance(exponent, Fraction):
        if exponent.denominator == 1 and isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent.numerator) <= EXACT_BITS:
                return base**exponent.numerator
        if real and exponent.denominator % 2 and not isinstance(base, mpmath.mpc) and base < 0:
            root = mpmath.power(-_float(base), _float(exponent))  # the real root of a negative number
            return -root if exponent.numerator % 2 else root
    power = mpmath.power(_float(base), _float(exponent))
    return _tidy(power, abs(power))


def _by(function: Callable[..., Number], *, circular: bool = False) -> Callable[[Sequence[Number]], Number]:
    """A function of mpmath's; `circular` ones have zeros and poles that rounding hides."""

    def evaluate(arguments: Sequence[Number]) -> Number:
        value = function(*(_float(argument) for argument in arguments))
        if circular and abs(value) > 1 / EPSILON:
            raise UndefinedError("a pole")
        return _tidy(value, 1 if circular else abs(value))

    return evaluate


def _whole(function: Callable[[Fraction], int], nudge: int) -> Callable[[Sequence[Number]], Number]:
    def evaluate(arguments: Sequence[Number]) -> Number:
        (value,) = arguments
        return Fraction(function(value if isinstance(value, Fraction) else _fraction(value + nudge * EPSILON)))

    return evaluate


def _fraction(value: Any) -> Fraction:
    """A real mpf as the binary fraction it is."""
    mantissa, exponent = abs(value).man_exp
    return int(mantissa) * Fraction(2) ** exponent * int(mpmath.sign(value))


def _factorial(arguments: Sequence[Number]) -> Number:
    (n,) = arguments
    if isinstance(n, Fraction) and n.denominator == 1 and 0 <= n <= 500:
        return Fraction(math.factorial(n.numerator))
    return _by(mpmath.factorial)(arguments)


def _log(arguments: Sequence[Number]) -> Number:
    if not all(arguments):
        raise UndefinedError("log 0")
    return _by(mpmath.log, circular=True)(arguments)


_ATOMS: dict[str, Callable[[], Number]] = {
    "Pi": lambda: +mpmath.pi,
    "Exp1": lambda: +mpmath.e,
    "ImaginaryUnit": lambda: mpmath.mpc(0, 1),
    "Symbol": lambda: mpmath.mpc(0, 1),  # i
    "Infinity": lambda: mpmath.inf,
    "NegativeInfinity": lambda: -mpmath.inf,
}
_CIRCULAR = (
    "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "asec", "acsc",
    "sinh", "cosh", "tanh", "coth", "sech", "csch", "asinh", "acosh", "atanh",
)  # fmt: skip
_FUNCTIONS: dict[str, Callable[[Sequence[Number]], Number]] = {
    **{name: _by(getattr(mpmath, name), circular=True) for name in _CIRCULAR},
    "Add": _add,
    "Mul": _multiply,
    "UnevaluatedExpr": _multiply,
    "exp": _by(mpmath.exp),
    "log": _log,
    "gamma": _by(mpmath.gamma),
    "factorial": _factorial,
    "binomial": _by(mpmath.binomial),
    "Abs": lambda arguments: abs(arguments[0]),
    "floor": _whole(math.floor, 1),
    "ceiling": _whole(math.ceil, -1),
    "Max": max,
    "Min": min,
}


def _constant(value: Number) -> str:
    imaginary = isinstance(value, mpmath.mpc)
    text = f"{_real(value.real)}+{_real(value.imag)}i" if imaginary else _real(value)
    return text if len(text) <= LONGEST_NUMBER else "n" + hashlib.sha256(text.encode()).hexdigest()[:24]


def _real(value: Number) -> str:
    """A fraction if it is one, else `SHOWN` digits."""
    if isinstance(value, Fraction):
        return str(value)
    if abs(mpmath.mag(value)) < 200:
        exact = _fraction(value)
        near = exact.limit_denominator(DENOMINATOR)
        if near and abs(exact - near) < abs(exact) / 10**60:
            return str(near)
    return str(mpmath.nstr(value, SHOWN))


def _rounded(value: Number) -> str:
    value = _float(value)
    return f"{mpmath.nstr(mpmath.re(value), SHOWN)} {mpmath.nstr(mpmath.im(value), SHOWN)}"


def _digest(values: Sequence[Number | None]) -> str:
    """A short text that equal functions share."""
    text = "|".join("" if value is None else _rounded(value) for value in values)
    return "f" + hashlib.sha256(text.encode()).hexdigest()[:24]
