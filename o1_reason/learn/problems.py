"""What is to be learned on: questions, with the right answer where it is known, and which answers are right."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..answers import answer_key, extract_answer
from ..errors import ConfigurationError, VerifierError
from ..ledger import identity_of
from ..mdp import State
from ..protocols import Verifier, check_scores
from .files import read_rows


@dataclass(frozen=True, slots=True)
class Problem:
    """A question; `gold` is its right answer, None where nobody knows it; `context` the messages before it."""

    question: str
    gold: str | None = None
    context: tuple[dict[str, Any], ...] = field(default=(), hash=False)

    @property
    def state(self) -> State:
        return State(self.question, (), self.context)


def read_problems(path: str | Path) -> Iterator[Problem]:
    """The problems of a file, one after the other.

    .txt                     a question a line
    .jsonl, .json, .parquet  "question" or "problem"; "gold" or "answer", of which what follows ``####`` counts, as in
                             GSM8K; without these the answer that "solution" marks, as in MATH; "context", messages

    Raises ConfigurationError, which names the line and the field, for what cannot be read.
    """
    if Path(path).suffix == ".txt":
        yield from _lines(path)
        return
    for line, data in read_rows(path):
        yield _problem(data, f"{path}, line {line}")


def _lines(path: str | Path) -> Iterator[Problem]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from (Problem(line.strip()) for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); give a text file, a question a line") from error


def _problem(data: dict[str, Any], where: str) -> Problem:
    question = data.get("question", data.get("problem"))
    if not isinstance(question, str) or not question.strip():
        raise ConfigurationError(f'{where}: "question" must be a text; the fields are: {", ".join(data) or "none"}')
    gold = data.get("gold", data.get("answer"))
    if isinstance(gold, bool) or not isinstance(gold, str | int | float | None):
        raise ConfigurationError(f'{where}: "gold" must be a text; got {gold!r:.60}')
    if gold is None and isinstance(data.get("solution"), str):
        gold = extract_answer(data["solution"])
    context = data.get("context") or ()
    if not isinstance(context, list | tuple) or not all(isinstance(message, dict) for message in context):
        raise ConfigurationError(f'{where}: "context" must be a list of messages; got {context!r:.60}')
    return Problem(question, None if gold is None else str(gold).rpartition("####")[2].strip(), tuple(context))


def same_text(question: str) -> Hashable:
    """Questions are the same if their words are, whatever the case and the blanks."""
    return " ".join(question.split()).casefold()


def exclude(
    problems: Iterable[Problem], held_out: Iterable[str], key: Callable[[str], Hashable] = same_text
) -> Iterator[Problem]:
    """Those of `problems` that are none of the questions `held_out`. Questions with equal keys are the same."""
    kept_back = {key(question) for question in held_out}
    return (problem for problem in problems if key(problem.question) not in kept_back)


@runtime_checkable
class Checker(Protocol):
    """Which finished states are right. `identity` tells checkers apart."""

    @property
    def identity(self) -> str: ...

    async def check(self, problem: Problem, states: Sequence[State]) -> list[bool | None]:
        """Per state of `problem`, whether its answer is right; None: unknown. An unfinished state is not right."""
        ...


@dataclass(frozen=True, slots=True)
class GoldChecker:
    """Right is what is the same as `Problem.gold` to mathematics (`answers.answer_key`); unknown without it."""

    identity: str = "gold"

    async def check(self, problem: Problem, states: Sequence[State]) -> list[bool | None]:
        if problem.gold is None:
            return [None] * len(states)
        gold = await answer_key(problem.gold)
        answers = [state.steps[-1].answer if finished(state) else None for state in states]
        return [answer is not None and await answer_key(answer) == gold for answer in answers]


@dataclass(frozen=True, slots=True)
class VerifierChecker:
    """Right is what an exact outcome verifier gives 1, such as the embedded reasoner's rules or `UnitTests`.

    Raises VerifierError if the verifier calls a model: labels must be facts, and cost nothing.
    """

    verifier: Verifier

    @property
    def identity(self) -> str:
        return identity_of(self.verifier, "verifier")

    async def check(self, problem: Problem, states: Sequence[State]) -> list[bool | None]:
        ends = [state for state in states if finished(state)]
        scores = check_scores(await self.verifier.score(ends), ends) if ends else []
        if any(score.usage.calls for score in scores):
            raise VerifierError(
                f"{type(self.verifier).__name__} calls a model; which answers are right takes an exact verifier, or "
                "problems with a gold answer and GoldChecker()"
            )
        right = iter([score.rewards[-1] == 1 for score in scores])
        return [next(right) if finished(state) else False for state in states]


def finished(state: State) -> bool:
    """Its last step is terminal."""
    return bool(state.steps) and state.steps[-1].terminal


async def verdicts(checker: Checker, problem: Problem, states: Sequence[State]) -> list[bool]:
    """`checker.check` where nothing may stay unknown; raises ConfigurationError if something does."""
    found = await checker.check(problem, states) if states else []
    if None in found:
        raise ConfigurationError(
            f"nobody knows the right answer to {problem.question!r:.60}: give the problem a gold answer, or a "
            "VerifierChecker that needs none"
        )
    return [bool(right) for right in found]
