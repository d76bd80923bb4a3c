"""The domain: arithmetic puzzles of the Game of 24 and Countdown kind, and how questions about them read."""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from o1_reason.errors import ConfigurationError
from o1_reason.mdp import Step
from o1_reason.resolve import adapters

LEAST_NUMBERS, MOST_NUMBERS = 3, 5
MAX_START, MAX_TARGET = 25, 100

_TARGET = re.compile(
    r"(?:\b(?:make|makes|making|get|gets|reach|target|goal|equals?|equal to|obtain|form|give|gives|total|result|is)"
    r"|=|->|\bgame of)\s*(?:of|is|to|:|=|->)?\s*(\d+)",
    re.IGNORECASE,
)
_TWENTY_FOUR = re.compile(r"\b24[- ](?:game|puzzle)\b", re.IGNORECASE)
_WORDS = frozenset(
    """
    a all an and are arithmetic basic be by can cards combine countdown digits each equal equals exactly expression
    find five for form four from game get gets give given gives goal how i in integers is it make makes making me must
    number numbers obtain of on once only operations operators out play please puzzle reach result so solution solve
    that the them these this three times to total target use used using value way we what with you your
    """.split()  # noqa: SIM905
)
_STEP = re.compile(r"\s*(\d+) ([-+*/]) (\d+) = (\d+) \(left: (\d+(?: \d+)*)\)\s*")


@dataclass(frozen=True, slots=True)
class Puzzle:
    """`numbers`, sorted, each to be used once, and the `target`."""

    numbers: tuple[int, ...]
    target: int


def parse(question: str) -> Puzzle:
    """The puzzle that `question` asks about; raises ConfigurationError where it asks for something else."""
    match = _TARGET.search(question)
    target = int(match[1]) if match else 24
    rest = question[: match.start()] + " " + question[match.end() :] if match else _TWENTY_FOUR.sub(" ", question)
    words = re.findall(r"[^\W\d_]+", rest)
    numbers = re.findall(r"\d+", rest)
    strange = [word for word in words if word.casefold() not in _WORDS]
    if strange or re.search(r"\d[./]\d|(?<![\d\s])-\d|\d{4,}", rest) or not numbers:
        raise _outside(question, 'it reads puzzles such as "4 5 6 10" or "Make 24 from 4, 5, 6 and 10"')
    if not LEAST_NUMBERS <= len(numbers) <= MOST_NUMBERS:
        raise _outside(question, f"it takes {LEAST_NUMBERS} to {MOST_NUMBERS} numbers, and found {len(numbers)}")
    values = tuple(sorted(map(int, numbers)))
    if not (values[0] >= 1 and values[-1] <= MAX_START and 1 <= target <= MAX_TARGET):
        raise _outside(question, f"it takes numbers from 1 to {MAX_START} and targets from 1 to {MAX_TARGET}")
    return Puzzle(values, target)


def _outside(question: str, why: str) -> ConfigurationError:
    shown = question if len(question) <= 60 else question[:57] + "..."
    others = ", ".join(name for name in adapters() if name != "embedded")
    return ConfigurationError(
        f"the embedded reasoner knows arithmetic puzzles only: {why}; the question was {shown!r}. For other questions "
        f"name another adapter (installed: {others or 'none'}) or bring a policy and a verifier of your own "
        "(docs/plug-ins.md)"
    )


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a trace: ``first operator second = result (left: ...)``, as stated, right or wrong."""

    first: int
    operator: str
    second: int
    result: int
    left: tuple[int, ...]

    def legal(self, left: Sequence[int]) -> bool:
        """Whether the numbers were at hand, the arithmetic is right and what is left is stated rightly."""
        rest = Counter(left)
        rest.subtract((self.first, self.second))
        if min(rest.values()) < 0 or _OPERATION[self.operator](self.first, self.second) != self.result:
            return False
        rest[self.result] += 1
        return rest == Counter(self.left)


_OPERATION = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: Fraction(a, b) if b else None,
}


def parse_step(text: str) -> Move | None:
    """The move that a step states; None where it is none."""
    match = _STEP.fullmatch(text)
    if match is None:
        return None
    return Move(int(match[1]), match[2], int(match[3]), int(match[4]), tuple(map(int, match[5].split())))


def expression(numbers: Sequence[int], steps: Sequence[Step]) -> str:
    """The expression that a trace amounts to, in a normal form: chains flattened, operands sorted.

    It is built from what the steps say, not from what would be right, so a wrong trace gives a wrong expression.
    """
    at_hand: list[tuple[int, _Expr]] = [(n, _Expr(str(n), str(n))) for n in numbers]

    def take(value: int) -> _Expr:
        for i, (known, expr) in enumerate(at_hand):
            if known == value:
                del at_hand[i]
                return expr
        return _Expr(str(value), str(value))

    last = _Expr("0", "0")
    for step in steps:
        move = parse_step(step.text)
        if move is None:
            return ""
        last = _combine(take(move.first), move.operator, take(move.second))
        at_hand.append((move.result, last))
    return last.text


@dataclass(frozen=True, slots=True)
class _Expr:
    """`kind` is "+" (terms: plus, minus), "*" (factors: over, under), or the number itself."""

    kind: str
    text: str
    up: tuple["_Expr", ...] = ()
    down: tuple["_Expr", ...] = ()


def _combine(a: _Expr, operator: str, b: _Expr) -> _Expr:
    kind = "+" if operator in "+-" else "*"
    up, down = (a.up, a.down) if a.kind == kind else ((a,), ())
    b_up, b_down = (b.up, b.down) if b.kind == kind else ((b,), ())
    if operator in "-/":
        b_up, b_down = b_down, b_up
    up = tuple(sorted(up + b_up, key=_order))
    down = tuple(sorted(down + b_down, key=_order))
    joiner, splitter = (" + ", " - ") if kind == "+" else (" * ", " / ")
    parts = [f"({e.text})" if e.kind == "+" else e.text for e in up]
    text = joiner.join(parts or (["0"] if kind == "+" else ["1"]))
    for e in down:
        text += splitter + (f"({e.text})" if e.kind == "+" else e.text)
    return _Expr(kind, text, up, down)


def _order(e: _Expr) -> tuple[bool, int, str]:
    """Numbers first, by size; then by text."""
    compound = e.kind in ("+", "*")
    return compound, 0 if compound else int(e.text), e.text


def solves(puzzle: Puzzle, answer: str) -> bool:
    """Whether `answer` is an expression that uses each number once and is worth the target, exactly.

    ``= 24`` at the end is allowed. Nothing is evaluated but integers, + - * / and brackets.
    """
    left, equals, right = answer.partition("=")
    if equals and right.strip() != str(puzzle.target):
        return False
    if len(answer) > 300 or not re.fullmatch(r"[\d\s+\-*/()]+", left):
        return False
    try:
        tree = ast.parse(left.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    used: list[int] = []
    try:
        return _value(tree.body, used) == puzzle.target and sorted(used) == list(puzzle.numbers)
    except (ArithmeticError, TypeError, RecursionError):
        return False


def _value(node: ast.expr, used: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp):
        a, b = _value(node.left, used), _value(node.right, used)
        match node.op:
            case ast.Add():
                return a + b
            case ast.Sub():
                return a - b
            case ast.Mult():
                return a * b
            case ast.Div():
                return a / b
    raise TypeError("not an arithmetic expression")
