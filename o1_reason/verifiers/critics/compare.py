"""What critics that compare candidates have in common.

The states of one call are candidates against each other, and their rewards tell how they stand among each other.
They cannot be set against the rewards of another call, and a state's reward depends on whom it was scored with.
Models favour positions, so each candidate stands in each equally often.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...chat import Reply
from ...mdp import Score, State
from .judge import Heard, Judge, all_judged, remark
from .prompts import Prompt, cache_key, example, problem, rules, schema, shared_steps, steps
from .replies import probabilities, read_object, text_of, word

LABELS = "ABCDEFGHIJ"


@dataclass(slots=True)
class Choice:
    """One reply: the probability of each choice, all on one where the model gave no log-probabilities."""

    chances: dict[str, float]
    critique: str


@dataclass(slots=True)
class Standing:
    """How a candidate stands: in [0, 1], None if nobody could tell."""

    reward: float | None
    summary: str = ""
    critique: str = ""


class Comparing:
    """The question which of some candidates is best. `other`: what may be answered instead."""

    def __init__(self, judge: Judge, task: str, other: str, reason: bool, instructions: str | None) -> None:
        self.judge, self.other, self.reason = judge, other, reason
        self.rules = rules(task, reason, instructions)

    @property
    def identity(self) -> str:
        digest = hashlib.sha256(f"{self.rules}{self.prompt([State('?')]).task}".encode()).hexdigest()[:12]
        return f"{self.judge.identity}, prompt {digest}"

    def prompt(self, candidates: Sequence[State]) -> Prompt:
        """`candidates` in the order in which they are shown."""
        first = candidates[0]
        common = shared_steps(candidates)
        evidence = problem(first) + steps(first.steps[:common])
        for label, state in zip(LABELS, candidates, strict=False):
            evidence += steps(state.steps, common, f"candidate {label}, ")
        labels = [*LABELS[: len(candidates)], self.other]
        fields: dict[str, dict[str, Any]] = {"critique": {"type": "string"}} if self.reason else {}
        shown = {"critique": '"..."'} if self.reason else {}
        fields["choice"] = {"type": "string", "enum": labels}
        shown["choice"] = " or ".join(f'"{label}"' for label in labels)
        form = example(shown)
        task = f"The candidates are {', '.join(labels[:-1])}. Reply with one JSON object and nothing else: {form}"
        return Prompt(self.rules, evidence, task, schema(fields), cache_key(first))

    async def ask(self, candidates: Sequence[State], seed: int = 0) -> Heard[Choice]:
        meanings = {label.casefold(): label for label in [*LABELS[: len(candidates)], self.other]}
        words = meanings | {f"candidate {label}": meaning for label, meaning in meanings.items()}

        def read(reply: Reply) -> Choice:
            found = read_object(reply, ("choice",))
            choice, at = word(found.get("choice"), words)
            chances = probabilities(reply, at, meanings) or {choice: 1.0}
            return Choice(chances, text_of(found.get("critique")))

        return await self.judge.ask(self.prompt(candidates), len(meanings), read, seed=seed)


def rivals(states: Sequence[State]) -> list[list[list[int]]]:
    """Indices of `states`, by question, and of each question by path: equal paths are one candidate."""
    questions: dict[str, dict[str, list[int]]] = {}
    for i, state in enumerate(states):
        path = repr([(step.text, step.terminal, step.answer) for step in state.steps])
        questions.setdefault(f"{state.question}\x1f{state.context}", {}).setdefault(path, []).append(i)
    return [[*paths.values()] for paths in questions.values()]


def settle(
    states: Sequence[State],
    sets: Sequence[Sequence[Sequence[int]]],
    standings: Sequence[Sequence[Standing]],
    bill: Heard[Choice],
) -> list[Score]:
    """Scores in the order of `states`; the first carries the cost of all. Raises UnjudgedError."""
    scores: list[Score | None] = [None] * len(states)
    for rival, stands in zip(sets, standings, strict=True):
        for same, standing in zip(rival, stands, strict=True):
            if standing.reward is not None:
                told = remark(standing.summary, [standing.critique], bill.failed)
                for i in same:
                    scores[i] = Score((standing.reward,), told)
    first = next((i for i, score in enumerate(scores) if score is not None), None)
    if first is not None:
        scores[first] = replace(scores[first], usage=bill.usage)  # type: ignore[type-var]
    return all_judged(scores, bill.failed)


def order(states: Sequence[State], ballot: int) -> list[int]:
    """The order in which a ballot shows `states`: a shuffle, rotated by one from ballot to ballot; every second full
    round reversed. It depends on the question and on what all have in common, so no candidate can choose its place."""
    cycle, turn = divmod(ballot, len(states))
    first = states[0]
    common = [step.text for step in first.steps[: shared_steps(states)]]
    content = repr([first.question, first.context, common, len(states), cycle // 2])
    shown = [*range(len(states))]
    random.Random(int.from_bytes(hashlib.sha256(content.encode(errors="replace")).digest()[:8])).shuffle(shown)
    if cycle % 2:
        shown.reverse()
    return shown[turn:] + shown[:turn]
