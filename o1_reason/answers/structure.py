r"""Keys of answers that have parts: lists, tuples, intervals, unions, matrices, equations, inequalities.

A key is a text; answers with equal keys are one answer, so being the same answer is transitive and does not depend on
who is compared with whom. The parts' keys come from an `Evaluator`, this module puts them together:

* a list of solutions and a set are one and have no order: ``1, 2`` is ``\{2, 1\}``, and a set of one is its element;
* tuples and intervals keep order and brackets; a matrix is its rows; a union has no order;
* ``x > 5`` is ``(5, \infty)``, an equation is what its sides differ by, whatever factor is taken out.
"""

import re
from typing import Protocol

from .normal import NAME, closing, constant, number, split


class Evaluator(Protocol):
    """What mathematics knows about expressions without structure; None where it knows nothing."""

    def expression(self, text: str) -> str | None:
        """A key that equal expressions share."""
        ...

    def difference(self, left: str, right: str, *, directed: bool) -> str | None:
        """A key of left - right that does not change with a factor, which must be positive if `directed`."""
        ...


_MATRIX = re.compile(r"\\begin\{(pmatrix|matrix|array)\}(.*)\\end\{\1\}", re.DOTALL)
_RELATION = re.compile(r"(\\(?:le|ge|ne|approx)(?![a-z])|[<>=])")
_NAME = re.compile(NAME)
_RESULT = re.compile(r"[a-z]'?(?:_(?:\w|\{\w+\}))?\([a-z](?:,[a-z])*\)|(?![a-z]*[xyz])[a-z]{2,}")  # f(x)=, area=
_COORDINATES = frozenset("xyz")  # y = 2x is a line; any other letter names a result
_WORDS = re.compile(r"[^\W\d_]+(?:[ ']+[^\W\d_]+)*")
_PROSE = re.compile(r"(?<![\\{a-z])[^\W\d_]{4,}")
_INFINITE = {"\\infty": "inf", "+\\infty": "inf", "-\\infty": "-inf"}
_LESS = {"<": "<", "\\le": "≤", ">": "<", "\\ge": "≤"}


def key(text: str, evaluator: Evaluator) -> str:
    """The key of an answer in normal form; the text itself where there is nothing to know."""
    value = number(text)
    if value is not None:
        return str(value)
    if _WORDS.fullmatch(text):
        return text
    if text in _INFINITE:
        return _INFINITE[text]
    listed = _listed(text, evaluator)
    if listed is not None:
        return listed
    if _PROSE.search(text):
        return text
    for kind in (_bracketed, _union, _matrix, _related, _either):
        found = kind(text, evaluator)
        if found is not None:
            return found
    return evaluator.expression(text) or text


def _set(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else "{" + ", ".join(sorted(keys)) + "}"


def _listed(text: str, evaluator: Evaluator) -> str | None:
    """``a, b``: separators outside all brackets."""
    parts = [part.strip() for part in split(text, ",;")]
    if len(parts) == 1:
        return None
    sides = [part.split("=", 1) for part in parts]
    names = {side[0] for side in sides}
    if len(names) == 1 and all(len(side) == 2 for side in sides) and _NAME.fullmatch(sides[0][0]):
        return _set([key(side[1], evaluator) for side in sides])  # x=1, x=2
    return _set([_item(part, evaluator) for part in parts if part])


def _item(part: str, evaluator: Evaluator) -> str:
    """x=1, y=2: beside others a name means something."""
    name, equals, value = part.partition("=")
    named = equals and (_NAME.fullmatch(name) or _RESULT.fullmatch(name))
    return f"{name}={key(value, evaluator)}" if named else key(part, evaluator)


def _bracketed(text: str, evaluator: Evaluator) -> str | None:
    if text.startswith("\\{") and text.endswith("\\}") and closing(text, 1) == len(text) - 1:
        parts = [part.strip() for part in split(text[2:-2], ",;")]
        if parts == [""]:
            return "\\emptyset"
        if "|" in text or ":" in text or not all(parts):
            return None
        return _set(sorted({_item(part, evaluator) for part in parts}))
    if text[:1] not in ("(", "[") or closing(text, 0) != len(text) - 1:
        return None
    parts = [part.strip() for part in split(text[1:-1], ",;")]
    if len(parts) == 1:
        return None if text[0] == "(" else f"[{key(text[1:-1], evaluator)}]"
    return text[0] + ", ".join(key(part, evaluator) for part in parts) + text[-1]


def _union(text: str, evaluator: Evaluator) -> str | None:
    parts = text.split("\\cup")
    return None if len(parts) == 1 else " ∪ ".join(sorted({key(part.strip(), evaluator) for part in parts}))


def _matrix(text: str, evaluator: Evaluator) -> str | None:
    found = _MATRIX.fullmatch(text)
    if found is None or "\\begin" in found[2]:
        return None
    rows = [row.split("&") for row in found[2].strip().removesuffix("\\\\").split("\\\\")]
    return "[" + "; ".join(", ".join(key(cell.strip(), evaluator) for cell in row) for row in rows) + "]"


def _either(text: str, evaluator: Evaluator) -> str | None:
    if text.count("\\pm") != 1:
        return None
    before, _, after = text.partition("\\pm")
    return _set([key(f"{before}{sign}{after.lstrip()}".removeprefix("+"), evaluator) for sign in "+-"])


def _related(text: str, evaluator: Evaluator) -> str | None:
    found = [match for match in _RELATION.finditer(text) if _outside(text, match.start())]
    if not found:
        return None
    starts, ends = [0, *(match.end() for match in found)], [*(match.start() for match in found), len(text)]
    sides = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    relations = [match[0] for match in found]
    if not all(sides):
        return None
    if "\\approx" in relations:
        return key(text[: text.index("\\approx")].strip(), evaluator)
    if set(relations) == {"="}:
        return _equation(sides, evaluator)
    if len(sides) == 2 and relations == ["\\ne"]:
        differ = evaluator.difference(*sides, directed=False)
        return f"{differ} ≠ 0" if differ else None
    if set(relations) <= _LESS.keys():
        return _interval(sides, relations, evaluator) or _inequality(sides, relations, evaluator)
    return None


def _outside(text: str, at: int) -> bool:
    before = text[:at]
    return sum(map(before.count, "([{")) == sum(map(before.count, ")]}"))


def _equation(sides: list[str], evaluator: Evaluator) -> str | None:
    first, last = sides[0], sides[-1]
    if len(sides) == 2 and _NAME.fullmatch(last) and not _NAME.fullmatch(first):
        first, last = last, first
    if all(constant(side) for side in sides):
        keys = {key(side, evaluator) for side in sides}
        return keys.pop() if len(keys) == 1 else None
    named = _NAME.fullmatch(first) and first not in _COORDINATES
    if (constant(last) and _NAME.fullmatch(first)) or _RESULT.fullmatch(first) or (named and len(sides) > 2):
        return key(last, evaluator)
    if len(sides) > 2:
        return None
    if named and not _NAME.fullmatch(last) and not re.search(rf"(?<![\\a-z]){re.escape(first)}", last):
        return key(last, evaluator)
    differ = evaluator.difference(first, last, directed=False)
    return f"{differ} = 0" if differ else None


def _interval(sides: list[str], relations: list[str], evaluator: Evaluator) -> str | None:
    """``1 < x \\le 2`` is ``(1, 2]``: one name between constants."""
    names = [i for i, side in enumerate(sides) if _NAME.fullmatch(side) or _RESULT.fullmatch(side)]
    if len(names) != 1 or len({relation in ("<", "\\le") for relation in relations}) != 1 or len(sides) > 3:
        return None
    at = names[0]
    if not all(constant(side) for i, side in enumerate(sides) if i != at) or (len(sides) == 3 and at != 1):
        return None
    ends = [(key(sides[i], evaluator), relations[min(i, at)]) for i in range(len(sides)) if i != at]
    below, above = ends if len(sides) == 3 else ([*ends, None] if at else [None, *ends])
    if relations[0] in (">", "\\ge"):
        below, above = above, below
    opening = "(-inf" if below is None else ("(" if below[1] in "<>" else "[") + below[0]
    return opening + ", " + ("inf)" if above is None else above[0] + (")" if above[1] in "<>" else "]"))


def _inequality(sides: list[str], relations: list[str], evaluator: Evaluator) -> str | None:
    found: list[str] = []
    for left, relation, right in zip(sides, relations, sides[1:], strict=False):
        less, more = (left, right) if relation in ("<", "\\le") else (right, left)
        differ = evaluator.difference(less, more, directed=True)
        if differ is None:
            return None
        found.append(f"{differ} {_LESS[relation]} 0")
    return " & ".join(sorted(found))
