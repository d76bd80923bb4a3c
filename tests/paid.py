"""A policy and verifier whose every finished call leaves a line behind: what was paid for, and by which process."""

import asyncio
import hashlib
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from o1_reason import Proposals, Score, State, Step, Usage

DEPTH = 4


class Paid:
    """Steps are good or bad by a coin that the seed throws; the answer of a path is how many of its four are bad.

    What is paid for is logged in ``folder/paid.log`` as "process mark" when it is done, before the call returns: a
    proposal, or the score of one state.
    """

    identity = "paid-1"
    samples_per_call = 3

    def __init__(self, folder: Path, seconds: float = 0.01) -> None:
        self.folder, self.seconds = folder, seconds

    async def _pay(self, *what: object) -> list[str]:
        marks = [hashlib.sha256(json.dumps(each).encode()).hexdigest()[:16] for each in what]
        await asyncio.sleep(self.seconds)
        self._log(marks)
        return marks

    def _log(self, marks: list[str]) -> None:
        with open(self.folder / "paid.log", "a") as log:
            log.write("".join(f"{os.getpid()} {mark}\n" for mark in marks))

    async def propose(
        self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None, seed: int = 0
    ) -> Proposals:
        (mark,) = await self._pay(["p", state.question, state.text, n, max_steps, seed])
        dice = random.Random(f"{state.question} {seed}")
        candidates = tuple(self._steps(state, max_steps, dice, f"{mark} {i}") for i in range(n))
        return Proposals(candidates, Usage(1, 1, sum(map(len, candidates))))

    def _steps(self, state: State, most: int, dice: random.Random, mark: str) -> tuple[Step, ...]:
        steps: list[Step] = []
        bad = sum("bad" in step.text for step in state.steps)
        for depth in range(len(state.steps) + 1, min(DEPTH, len(state.steps) + most) + 1):
            wrong = dice.random() < 0.3
            bad += wrong
            text = f"{mark} {'bad' if wrong else 'good'} {depth}"
            steps.append(Step(text, depth == DEPTH, str(bad) if depth == DEPTH else None, tokens=1))
        return tuple(steps)

    async def score(self, states: Sequence[State]) -> list[Score]:
        await self._pay(*(["s", state.question, state.text] for state in states))
        return [Score((0.0 if "bad" in state.text else 1.0,), usage=Usage(1)) for state in states]


def paid(folder: Path) -> list[tuple[int, str]]:
    """Process and mark of all that was paid for, in order; a line that is being written is not there yet."""
    log = folder / "paid.log"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [(int(process), mark) for process, mark in map(str.split, lines)]
