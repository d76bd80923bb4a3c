"""STaR (Zelikman et al. 2022, arXiv 2203.14465): the policy's own right solutions; for what it cannot solve, reasons
found backwards from the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ..chat_policy import ChatPolicy
from ..errors import ConfigurationError
from ..mdp import State
from .monte_carlo import at_least_one
from .problems import Problem
from .rollouts import Roller, sample
from .rows import Row, completion

Hint = Callable[[Problem], State]

TELL = (
    "The right answer to the next question is: {gold}\nReason from the question to this answer as if you had not been "
    "told it, and do not mention that you were."
)


@dataclass(frozen=True, slots=True)
class STaR:
    """Right solutions of each problem, at most `keep`, each once, the first ones drawn.

    Where none of `samples` is right and `rationalise`, the policy is shown the gold answer and draws `samples` more
    (section 3.2, rationalization). `hint` makes of a problem the state that shows it; by default it is a system
    message for policies over chat models, or what the policy's own ``hint(problem)`` makes. Rows hold the problem as
    it is, without the hint. A problem without a gold answer is not rationalised.

    The source of a row is "star", or "star_rationalised". Steps are joined by `separator`.
    """

    samples: int = 8
    keep: int = 4
    rationalise: bool = True
    hint: Hint | None = None
    separator: str = "\n"
    source: ClassVar[str] = "star"

    def __post_init__(self) -> None:
        at_least_one(samples=self.samples, keep=self.keep)

    async def label(self, problem: Problem, given: Sequence[State] | None, roller: Roller, key: str) -> list[Row]:
        if given is not None:
            raise ConfigurationError("STaR samples its solutions itself: give problems; of traces, see trees.solutions")
        hint = self._hint(roller.policy) if self.rationalise and problem.gold is not None else None
        right = await _right(roller, problem, problem.state, self.samples)
        source = self.source
        if not right and hint is not None:
            source = "star_rationalised"
            right = await _right(roller, problem, hint(problem), self.samples)
        return [completion(problem, state, source, self.separator) for state in right[: self.keep]]

    def _hint(self, policy: Any) -> Hint:
        if self.hint is not None:
            return self.hint
        own = getattr(policy, "hint", None)
        if callable(own):
            return cast(Hint, own)
        if isinstance(policy, ChatPolicy):
            return tell
        raise ConfigurationError(
            f"nobody knows how {type(policy).__name__} can be shown the answer: give STaR(hint=...), a function from "
            "a Problem to the State that shows it, or STaR(rationalise=False)"
        )


def tell(problem: Problem) -> State:
    """The problem with its gold answer in a system message before the question."""
    message = {"role": "system", "content": TELL.format(gold=problem.gold)}
    return State(problem.question, (), (*problem.context, message))


async def _right(roller: Roller, problem: Problem, start: State, n: int) -> list[State]:
    return [state for state, right in await sample(roller, problem, n, start) if right]
