"""Checks of the final answer against what is known about it, without a model: exact, free, and certain.

Each gives a finished state one reward: 1.0 if its answer passes, else 0.0, with the reason as critique; a path that
ended without an answer does not pass. A state that is not finished gets 0.5: nothing is known about it, so it ranks
below every right answer and above every wrong one. Inside `Gate` only finished states are asked about.
"""

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from ..answers.mathematics import NoWorkerError, UnansweredError, answer_key, answer_keys, ask
from ..answers.normal import canonical, number
from ..errors import ConfigurationError, VerifierError
from ..mdp import Score, State, Usage

UNKNOWN = 0.5
STOPPED = "took too long, or too much memory, and was stopped"


class Outcome(ABC):
    """A check of the answer. Subclasses say what is wrong with one."""

    identity: str

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """No model is asked."""
        return Usage()

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        return [await self._score(state) for state in states]

    async def _score(self, state: State) -> Score:
        last = state.steps[-1] if state.steps else None
        if last is None or not last.terminal:
            return Score((UNKNOWN,), "not finished")
        fault = "no answer" if last.answer is None else await self.fault(last.answer)
        return Score((0.0,), fault) if fault else Score((1.0,))

    @abstractmethod
    async def fault(self, answer: str) -> str:
        """Why the answer does not pass; empty if it does. Does not give the right answer away."""


class MathEquivalence(Outcome):
    r"""The answer is mathematically the same as one of `gold`: ``1/\sqrt{2}`` as ``\frac{\sqrt{2}}{2}``.

    Decided by `o1_reason.answers.answer_key`; an answer that takes it too long is compared as text.
    """

    def __init__(self, gold: str | Sequence[str]) -> None:
        self.gold = _several(gold)
        self.identity = f"math-equivalence {list(self.gold)}"

    async def fault(self, answer: str) -> str:
        found, *gold = await answer_keys([answer, *self.gold])
        return "" if found in gold else "not the same as the expected answer"


class ExactMatch(Outcome):
    """The answer is one of `gold`, character by character but for blanks around it."""

    def __init__(self, gold: str | Sequence[str], ignore_case: bool = False) -> None:
        self.gold = _several(gold)
        self.ignore_case = ignore_case
        self.identity = f"exact-match {list(self.gold)}{', ignoring case' if ignore_case else ''}"

    async def fault(self, answer: str) -> str:
        found, *gold = (text.strip().casefold() if self.ignore_case else text.strip() for text in (answer, *self.gold))
        return "" if found in gold else "not the expected text"


class NumericTolerance(Outcome):
    r"""The answer is a real number x with |x - g| <= max(rel * |g|, abs) for a g of `gold`.

    It may be written in any way that has a value: ``3.14``, ``$1,200``, ``2/3``, ``\sqrt{2}``.
    """

    def __init__(self, gold: float | str | Sequence[float | str], rel: float = 1e-6, abs: float = 0.0) -> None:
        if not (0 <= rel < math.inf and 0 <= abs < math.inf):
            raise ConfigurationError(f"rel and abs must be at least 0, and finite; got {rel} and {abs}")
        several = [gold] if isinstance(gold, float | int | str) else list(gold)
        self.gold = tuple(_value(each) for each in several)
        if not self.gold:
            raise ConfigurationError("gold is empty: give the number that is expected, or several")
        self.rel, self.abs = Fraction(rel), Fraction(abs)
        self.identity = f"numeric-tolerance {[str(each) for each in self.gold]}, rel {rel}, abs {abs}"

    async def fault(self, answer: str) -> str:
        found = number(await answer_key(answer))
        if found is None:
            return "not a number"
        near = (abs(found - each) <= max(self.rel * abs(each), self.abs) for each in self.gold)
        return "" if any(near) else "not within the tolerance of the expected number"


class Regex(Outcome):
    """The answer, without blanks around it, matches `pattern` as a whole, or somewhere if not `full`.

    Matching happens in the process of `answers.mathematics`, so a pattern that backtracks for ever is stopped after a
    few seconds, and does not match. Flags can be written into the pattern: ``(?i)yes|no``.
    """

    def __init__(self, pattern: str, full: bool = True) -> None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigurationError(f"{pattern!r} is not a regular expression: {error}") from error
        self.pattern, self.full = pattern, full
        self.identity = f"regex {pattern!r}{'' if full else ', anywhere'}"

    async def fault(self, answer: str) -> str:
        matched = await _ask("matches", self.pattern, answer.strip(), self.full)
        if matched is None:
            return f"matching the pattern {STOPPED}"
        return "" if matched else "does not match the pattern"


class JSONSchema(Outcome):
    """The answer is JSON, in a code block or not, that satisfies `schema`; the critique is the first violation.

    Needs the extra ``schema``: jsonschema, whose default draft holds where the schema names none.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            from jsonschema import SchemaError
            from jsonschema.validators import validator_for
        except ImportError as error:
            raise ConfigurationError("JSONSchema needs jsonschema: pip install 'o1-reason[schema]'") from error
        try:
            self.identity = f"json-schema {json.dumps(schema, sort_keys=True)}"
            validator_for(dict(schema)).check_schema(dict(schema))
        except (TypeError, SchemaError) as error:
            raise ConfigurationError(f"not a JSON schema: {getattr(error, 'message', error)}") from error
        self.schema = dict(schema)

    async def fault(self, answer: str) -> str:
        block = re.fullmatch(r"```\w*\n(.*?)\n?```", answer.strip(), re.DOTALL)
        violation = await _ask("violation", self.schema, block[1] if block else answer)
        return f"checking the schema {STOPPED}" if violation is None else violation


async def _ask(do: str, *arguments: Any) -> Any:
    """None if it had to be stopped. Raises VerifierError if it cannot even begin."""
    try:
        return await ask(do, *arguments)
    except NoWorkerError as error:
        raise VerifierError(str(error)) from error
    except UnansweredError:
        return None


def _several(gold: str | Sequence[str]) -> tuple[str, ...]:
    several = (gold,) if isinstance(gold, str) else tuple(gold)
    if not several or not all(isinstance(each, str) and each.strip() for each in several):
        raise ConfigurationError(f"gold must be an answer, or several, as text; got {gold!r}")
    return several


def _value(gold: float | str) -> Fraction:
    value = number(canonical(str(gold)))
    if value is None:
        raise ConfigurationError(f"gold must be a number; got {gold!r} (write it as a decimal or a fraction)")
    return value
