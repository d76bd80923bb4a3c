"""Labelled solutions from a file: one JSON object a line, or one JSON array of them, in one of three forms.

own           {"question", "steps": [...], and what is known of: "answer", "key", "gold", "correct",
               "labels": [...] or "first_error", "group"}
ProcessBench  {"problem", "steps": [...], "label", "final_answer_correct"}        (arXiv 2412.06559)
TRL, PRM800K  {"prompt", "completions": [...], "labels": [...]}                   (stepwise supervision)
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..answers import answer_keys, extract_answer
from ..errors import ConfigurationError
from ..mdp import State, Step


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a solution, its text apart. None is unknown throughout.

    line      where it stands in the file, from 1
    group     solutions with equal groups answer the same question: the pool that best-of-n draws from
    key       answers with equal keys are one answer; None: found out from `answer`
    correct   whether the final answer is right; where it is None, `answer` is compared with `gold`
    labels    per step, whether it is right; empty: no step is labelled
    """

    line: int
    group: str
    answer: str | None = None
    key: str | None = None
    gold: str | None = None
    correct: bool | None = None
    labels: tuple[bool | None, ...] = ()

    @property
    def first_error(self) -> int | None:
        """Index of the first wrong step, -1 if there is none; None where the labels do not tell."""
        for i, label in enumerate(self.labels):
            if not label:
                return None if label is None else i
        return -1 if self.labels else None


@dataclass(frozen=True, slots=True)
class Solution:
    """A solution as the verifier sees it, and what is known of it."""

    state: State
    truth: Truth


def read_solutions(path: str | Path, limit: int | None = None) -> Iterator[Solution]:
    """The solutions of a file, the first `limit` of them, one after the other.

    Raises ConfigurationError, which names the line and the field, for what cannot be read.
    """
    return islice((_Entry(path, line, data).solution() for line, data in _entries(path)), limit)


def _entries(path: str | Path) -> Iterator[tuple[int, Any]]:
    line = 1
    try:
        with open(path, encoding="utf-8-sig") as file:
            if file.read(1) == "[":  # as ProcessBench is distributed
                file.seek(0)
                yield from enumerate(json.load(file), 1)
                return
            file.seek(0)
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield line, json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); give a file of JSON lines") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}, line {line}: this is no JSON ({error})") from error


class _Entry:
    """One entry of a file, its fields taken out and checked."""

    def __init__(self, path: str | Path, line: int, data: Any) -> None:
        self._path, self._line, self._data = path, line, data

    def solution(self) -> Solution:
        if not isinstance(self._data, dict):
            raise self._wrong("an entry", "a JSON object", self._data)
        if "problem" in self._data:
            return self._process_bench()
        if "prompt" in self._data:
            return self._stepwise()
        if "question" in self._data:
            return self._own()
        fields = ", ".join(map(str, self._data)) or "none"
        raise ConfigurationError(
            f'{self._path}, line {self._line}: there is no "question" (nor "problem", as in ProcessBench, nor '
            f'"prompt", as in TRL); the fields are: {fields}'
        )

    def _own(self) -> Solution:
        steps = self._steps("steps")
        labels = self._labels(steps)
        if "first_error" in self._data:
            if labels:
                raise self._wrong("first_error", 'left out where there is "labels"', self._data["first_error"])
            labels = self._until(self._index("first_error", steps), steps)
        return self._solution(
            "question", steps, labels, self._flag("correct"), self._word("answer"), key=self._word("key"),
            gold=self._word("gold"),
        )  # fmt: skip

    def _process_bench(self) -> Solution:
        steps = self._steps("steps")
        labels = self._until(self._index("label", steps), steps)
        return self._solution("problem", steps, labels, self._flag("final_answer_correct"))

    def _stepwise(self) -> Solution:
        steps = self._steps("completions")
        return self._solution("prompt", steps, self._labels(steps), finished=False)

    def _solution(
        self, question: str, steps: Sequence[str], labels: tuple[bool | None, ...], correct: bool | None = None,
        answer: str | None = None, key: str | None = None, gold: str | None = None, finished: bool = True,
    ) -> Solution:  # fmt: skip
        """Not `finished`: it may be cut off at a wrong step, and is whole only if it ends with an answer."""
        text = self._data[question]
        if not isinstance(text, str) or not text.strip():
            raise self._wrong(question, "a text", text)
        if answer is None:
            answer = extract_answer(steps[-1]) or (extract_answer("\n".join(steps)) if finished else None)
        last = Step(steps[-1], terminal=finished or answer is not None, answer=answer, key=key)
        state = State(text, (*map(Step, steps[:-1]), last))
        group = self._word("group") or text
        return Solution(state, Truth(self._line, group, answer, key, gold, correct, labels))

    def _steps(self, name: str) -> list[str]:
        steps = self._data.get(name)
        if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
            raise self._wrong(name, "a list of texts, one a step, and at least one", steps)
        return steps

    def _labels(self, steps: Sequence[str]) -> tuple[bool | None, ...]:
        labels = self._data.get("labels")
        if labels is None:
            return ()
        if not isinstance(labels, list) or len(labels) != len(steps):
            raise self._wrong("labels", f"a list of {len(steps)}, one for each step", labels)
        for i, label in enumerate(labels):
            if label not in (True, False, None):
                raise self._wrong(f"labels[{i}]", "true, false, or null for unknown", label)
        return tuple(None if label is None else bool(label) for label in labels)

    def _index(self, name: str, steps: Sequence[str]) -> int:
        index = self._data.get(name)
        if not isinstance(index, int) or isinstance(index, bool) or not -1 <= index < len(steps):
            raise self._wrong(name, f"the index of the first wrong of {len(steps)} steps, from 0, or -1", index)
        return index

    def _until(self, first: int, steps: Sequence[str]) -> tuple[bool | None, ...]:
        """Labels of which only the first error is known: nobody has judged what comes after it."""
        if first < 0:
            return (True,) * len(steps)
        return (*(True,) * first, False, *(None,) * (len(steps) - first - 1))

    def _flag(self, name: str) -> bool | None:
        flag = self._data.get(name)
        if flag not in (True, False, None):
            raise self._wrong(name, "true or false", flag)
        return None if flag is None else bool(flag)

    def _word(self, name: str) -> str | None:
        word = self._data.get(name)
        if isinstance(word, bool) or not isinstance(word, str | int | float | None):
            raise self._wrong(name, "a text", word)
        return None if word is None else str(word)

    def _wrong(self, name: str, wanted: str, got: Any) -> ConfigurationError:
        shown = "nothing" if got is None else json.dumps(got, ensure_ascii=False)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ConfigurationError(f"{self._path}, line {self._line}: {name} must be {wanted}; got {shown}")


async def settled(truths: Sequence[Truth]) -> list[Truth]:
    """`truths`, each with the key of its answer, and with `correct` where `gold` tells it."""
    texts: dict[str, None] = {}  # an ordered set: only what has to be compared, for mathematics takes its time
    for truth in truths:
        judged = truth.correct is not None or truth.gold is None
        needed = (None if truth.key is not None and judged else truth.answer, None if judged else truth.gold)
        texts |= {text: None for text in needed if text is not None}
    keys = dict(zip(texts, await answer_keys(list(texts)), strict=True))
    return [_settled(truth, keys) for truth in truths]


def _settled(truth: Truth, keys: Mapping[str, str]) -> Truth:
    key, correct = truth.key, truth.correct
    if key is None and truth.answer is not None:
        key = keys[truth.answer]
    if correct is None and truth.gold is not None:
        correct = truth.answer is not None and keys[truth.answer] == keys[truth.gold]
    return replace(truth, key=key, correct=correct)
