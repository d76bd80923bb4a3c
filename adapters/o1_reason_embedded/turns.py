"""A verifier for whole turns of an agent that solves puzzles with tools."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from o1_reason.answers import extract_answer
from o1_reason.mdp import Score, State, Step
from o1_reason.protocols import Verifier
from o1_reason.turns import turn_of

from .puzzle import parse_step
from .verifier import EmbeddedVerifier

UNKNOWN = 0.5  # the score of a turn with nothing to check


@dataclass(frozen=True)
class TurnVerifier:
    """Scores a turn as `verifier` scores the solution in it: the trace in its text, and the expression it ends with.

    The expression is the first text among the arguments of its first tool call, or what a text marks as its answer. A
    turn without one is scored 0.5.
    """

    verifier: Verifier = field(default_factory=EmbeddedVerifier)

    @property
    def identity(self) -> str:
        return f"turns({getattr(self.verifier, 'identity', repr(self.verifier))})"

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises what `verifier` raises."""
        solutions = [_solution(state) for state in states]
        known = iter(await self.verifier.score([solution for solution in solutions if solution]))
        scores: list[Score] = []
        for solution in solutions:
            score = next(known) if solution else Score((UNKNOWN,))
            scores.append(Score(score.rewards[-1:], score.critique, score.usage))
        return scores


def _solution(state: State) -> State | None:
    """The turn that is the last step of `state`, step by step; None where it gives no expression."""
    turn = state.steps[-1] if state.steps else Step("")
    text, calls = turn_of(turn)
    given = [value for call in calls[:1] for value in call["args"].values() if isinstance(value, str)]
    answer = given[0] if given else extract_answer(text)
    if answer is None:
        return None
    *trace, last = [line for line in text.splitlines() if parse_step(line)] or [answer]
    steps = (*map(Step, trace), Step(last, True, answer))
    return State(state.question, steps)
