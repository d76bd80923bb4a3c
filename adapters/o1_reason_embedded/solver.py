"""The exact value of a state: can the target still be reached? For measuring, never for training labels."""

from collections.abc import Sequence
from functools import lru_cache

from o1_reason.mdp import Score, State, Usage

from .puzzle import parse, parse_step, solves
from .vocab import MAX_NUMBER


@lru_cache(maxsize=200_000)
def solvable(left: tuple[int, ...], target: int) -> bool:
    """Whether some order of + - * / makes `target` of `left`, sorted, with whole numbers from 0 to 319 on the way."""
    if len(left) == 1:
        return left[0] == target
    for j in range(1, len(left)):
        for i in range(j):
            low, high = left[i], left[j]
            rest = left[:i] + left[i + 1 : j] + left[j + 1 :]
            values = {low + high, high - low, low * high}
            if low and high % low == 0:
                values.add(high // low)
            if any(value <= MAX_NUMBER and solvable(tuple(sorted((*rest, value))), target) for value in values):
                return True
    return False


class Solver:
    """A verifier: each step is worth 1 if the state after it follows by the rules and can still be solved, else 0."""

    identity = "embedded-solver"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        return Usage()

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises ConfigurationError for a question outside the domain."""
        return [Score(tuple(map(float, self._values(state)))) for state in states]

    def _values(self, state: State) -> list[bool]:
        puzzle = parse(state.question)
        left, legal = puzzle.numbers, True
        values: list[bool] = []
        for step in state.steps:
            move = parse_step(step.text)
            legal = legal and move is not None and move.legal(left)
            left = tuple(sorted(move.left)) if move else left
            if step.terminal:
                values.append(step.answer is not None and solves(puzzle, step.answer))
            else:
                values.append(legal and solvable(left, puzzle.target))
        return values or [solvable(puzzle.numbers, puzzle.target)]
