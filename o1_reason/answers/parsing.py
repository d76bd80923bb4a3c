"""From a canonical text to a sympy expression, by math-verify's parser. Heavy: only `values` imports this."""

import re
from fractions import Fraction
from functools import lru_cache

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig
from math_verify import parse as math_verify_parse

from .normal import number

_AS_IS = LatexExtractionConfig(
    normalization_config=NormalizationConfig(
        basic_latex=False, units=False, malformed_operators=False, nits=False, boxed="none", equations=False
    ),
    boxed_match_priority=-1,
)
_NO_EXPRESSION = re.compile(r"(?<!_\{[a-z])=|[<>:;'\"?$]|\.\.\.|[0-9]_|\\(?:le|ge|ne|pm|cup|in)(?![a-z])")


@lru_cache(maxsize=4096)
def parse(text: str) -> sympy.Expr | None:
    """The sympy expression that a canonical text means; None for statements, ratios, numbers in another base."""
    if not text or _NO_EXPRESSION.search(text):
        return None
    found = math_verify_parse(
        f"${_explicit(text)}$",
        [_AS_IS],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,  # type: ignore[arg-type]  # the parent holds the clock
    )
    return found[0] if found and isinstance(found[0], sympy.Expr) else None


def _explicit(text: str) -> str:
    """Spells out what the parser would misread: 5(3) is no mixed number, degrees are a factor."""
    text = text.replace("^\\circ", "\\frac{\\pi}{180}").replace(")(", ")*(").replace(")\\frac", ")*\\frac")
    text = re.sub(r"(?<![\\a-z0-9_^.])([0-9.]+)\(", r"\1*(", text)
    text = re.sub(r"\)(?=[0-9])", ")*", text)
    return re.sub(r"[0-9]*\.[0-9]*\\overline\{[0-9]+\}", _ratio, text)


def _ratio(repeating: re.Match[str]) -> str:
    value = number(repeating[0]) or Fraction(0)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
