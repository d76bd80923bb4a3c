"""Verifiers made of verifiers."""

from collections.abc import Sequence
from typing import Any

from ..ledger import identity_of
from ..mdp import Score, State, Usage
from ..protocols import Verifier


class Gate:
    """A process verifier, with an outcome verifier at the end.

    The rewards are `verifier`'s; the last reward of a finished path is multiplied by `outcome`'s score of it, so an
    answer that an exact check refutes is worth 0 whatever the process verifier thinks.
    """

    def __init__(self, verifier: Verifier, outcome: Verifier) -> None:
        self.verifier = verifier
        self.outcome = outcome

    @property
    def identity(self) -> str:
        return f"gate({identity_of(self.verifier, 'verifier')}, {identity_of(self.outcome, 'verifier')})"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        total = Usage()
        for part in (self.verifier, self.outcome):
            known: Any = getattr(part, "bound", None)
            total += known(state, n, max_steps) if known else Usage(calls=1)
        return total

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        scores = list(await self.verifier.score(states))
        finished = [i for i, state in enumerate(states) if state.steps and state.steps[-1].terminal]
        if finished:
            verdicts = await self.outcome.score([states[i] for i in finished])
            for i, verdict in zip(finished, verdicts, strict=True):
                *before, last = scores[i].rewards
                rewards = (*before, last * verdict.rewards[-1])
                critique = verdict.critique or scores[i].critique
                scores[i] = Score(rewards, critique, scores[i].usage + verdict.usage)
        return scores
