"""Step labels by Monte-Carlo rollouts from every step: Math-Shepherd and MiPS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..errors import ConfigurationError
from ..mdp import State
from ..together import together
from .problems import Problem, verdicts
from .rollouts import Roller, sample, texts
from .rows import Path, Row, prompt_of, stepwise


@dataclass(frozen=True, slots=True)
class MathShepherd:
    """Math-Shepherd (Wang et al. 2023, arXiv 2312.08935), section 3.3: a step is as good as what can follow it.

    From each step but the last, the policy (the completer) draws N = `rollouts` rollouts a_1 .. a_N; a* is right.

        hard estimation, eq. 3:  y = 1 if some a_j = a*, else 0         the paper's choice, and the default
        soft estimation, eq. 4:  y = (1/N) sum_j [a_j = a*]

    The last step is labelled by its own answer. The solutions come from anywhere (`Solved`); of a bare problem the
    policy samples `solutions`. A reward model trained on hard labels is used with the least step reward of a path
    (aggregate "min").
    """

    solutions: int = 4
    rollouts: int = 8
    soft: bool = False
    source: ClassVar[str] = "math_shepherd"

    def __post_init__(self) -> None:
        at_least_one(solutions=self.solutions, rollouts=self.rollouts)

    async def label(self, problem: Problem, given: Sequence[State] | None, roller: Roller, key: str) -> list[Row]:
        solutions = await _judged(problem, given, roller, self.solutions)
        rows: list[Row] = []
        for (state, _), labels in zip(solutions, await shares(problem, solutions, roller, self.rollouts), strict=True):
            if not self.soft:
                labels = [(float(share > 0), n) for share, n in labels]
            rows.append(stepwise(prompt_of(problem), texts(state), labels, self.source, key))
        return rows


@dataclass(frozen=True, slots=True)
class MiPS:
    """Model-induced process supervision (Wang et al. 2024, arXiv 2402.02658): Monte-Carlo shares, on its own solutions.

    What differs from Math-Shepherd: the policy labels solutions that it sampled itself, `solutions` of each problem,
    so that generator and completer are one; the label of a step is the share of its completions that end right, and
    never a threshold of it; and because a weak policy makes good steps look bad (shares are biased downward, most in
    early steps), the paper aggregates by high step scores, max or sum of logits, not by "min", with which such a
    reward model is worse than with outcomes alone. Of this package's aggregations "mean" and "last" come nearest.
    """

    solutions: int = 8
    rollouts: int = 8
    source: ClassVar[str] = "mips"

    def __post_init__(self) -> None:
        at_least_one(solutions=self.solutions, rollouts=self.rollouts)

    async def label(self, problem: Problem, given: Sequence[State] | None, roller: Roller, key: str) -> list[Row]:
        if given is not None:
            raise ConfigurationError(
                "MiPS labels what its own policy samples: give problems; for solutions, MathShepherd"
            )
        solutions = await sample(roller, problem, self.solutions)
        labels = await shares(problem, solutions, roller, self.rollouts)
        prompt = prompt_of(problem)
        return [
            stepwise(prompt, texts(state), each, self.source, key)
            for (state, _), each in zip(solutions, labels, strict=True)
        ]


async def shares(
    problem: Problem, solutions: Sequence[tuple[State, bool]], roller: Roller, n: int
) -> list[list[tuple[float, int]]]:
    """Per step of each finished solution the share of `n` rollouts from there that are right; of the last, its own.

    All are drawn at once, and those of a beginning that solutions share once.
    """
    prefixes: dict[Path, State] = {}
    for state, _ in solutions:
        for end in range(1, len(state.steps)):
            prefix = replace(state, steps=state.steps[:end])
            prefixes.setdefault(texts(prefix), prefix)
    drawn = await together(roller.roll(problem, prefix, n) for prefix in prefixes.values())
    share = {path: (rollouts.share, n) for path, rollouts in zip(prefixes, drawn, strict=True)}
    return [
        [*(share[texts(state)[:end]] for end in range(1, len(state.steps))), (float(right), 1)]
        for state, right in solutions
    ]


async def _judged(problem: Problem, given: Sequence[State] | None, roller: Roller, n: int) -> list[tuple[State, bool]]:
    if given is None:
        return await sample(roller, problem, n)
    return list(zip(given, await verdicts(roller.checker, problem, given), strict=True))


def at_least_one(**settings: int) -> None:
    """Raises ConfigurationError for a setting below 1."""
    for name, value in settings.items():
        if value < 1:
            raise ConfigurationError(f"{name} must be an integer >= 1; got {value!r}")
