"""Rollouts: a policy goes on from a state to the end, n times, and a checker says which ends are right."""

import asyncio
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ..calls import Models, Order
from ..errors import ConfigurationError, LedgerError
from ..ledger import Ledger
from ..mdp import NOTHING, State, Step, Usage
from ..protocols import Policy
from ..receipt import Receipt
from ..together import together
from .problems import Checker, Problem, verdicts


@dataclass(frozen=True, slots=True)
class Rollout:
    """Steps from a state on, and whether they end in a right answer."""

    steps: tuple[Step, ...]
    right: bool

    @property
    def finished(self) -> bool:
        return bool(self.steps) and self.steps[-1].terminal


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What came of `n` attempts. An attempt that brought nothing, or no end, is not right."""

    n: int
    found: tuple[Rollout, ...]

    @property
    def right(self) -> int:
        return sum(rollout.right for rollout in self.found)

    @property
    def share(self) -> float:
        """MC(s): the share of the attempts that ended right, in [0, 1]."""
        return self.right / self.n


class Roller:
    """Draws rollouts of one policy, at most `concurrency` calls of it at once, and counts them.

    seed         of every sample: those of a state depend on it, the state and their numbers alone
    ledger       keeps finished calls, so that drawing again what was drawn is free
    temperature  None: the policy's own
    max_steps    of one rollout; what is not at its end by then is not right

    `usage` is what all calls cost, those the ledger answered included; `drawn` the rollouts asked for.
    """

    def __init__(
        self,
        policy: Policy,
        checker: Checker,
        *,
        seed: int = 0,
        concurrency: int = 16,
        ledger: Ledger | None = None,
        temperature: float | None = None,
        max_steps: int = 64,
    ) -> None:
        if concurrency < 1 or max_steps < 1:
            raise ConfigurationError(f"concurrency and max_steps must be at least 1; got {concurrency} and {max_steps}")
        if temperature is not None and not temperature > 0:
            raise ConfigurationError(f"rollouts have to differ: temperature must be above 0; got {temperature}")
        self.policy, self.checker, self.seed = policy, checker, seed
        self.temperature, self.max_steps = temperature, max_steps
        self.usage: Usage = NOTHING
        self.drawn = 0
        self._models = Models(policy, None, seed, ledger, _warn)
        self._slots = asyncio.Semaphore(concurrency)

    async def roll(self, problem: Problem, state: State, n: int, first: int = 0) -> Rollouts:
        """`n` rollouts from `state`, in one call where the policy takes so many, numbered from `first`.

        A policy that stops short of the end is asked to go on. Raises what the policy and the checker raise.
        """
        per_call = getattr(self.policy, "samples_per_call", None) or n
        self.drawn += n
        parts = [(at, min(per_call, n - at)) for at in range(0, n, per_call)]
        drawn = await together(self._propose(state, size, self.max_steps, first + at) for at, size in parts)
        tails = [tail for part in drawn for tail in part]
        ends = await together(self._go_on(state, tail, i) for i, tail in enumerate(tails, first))
        right = await verdicts(self.checker, problem, [_follow(state, steps) for steps in ends])
        return Rollouts(n, tuple(Rollout(*pair) for pair in zip(ends, right, strict=True)))

    async def _propose(self, state: State, n: int, max_steps: int, first: int) -> Sequence[tuple[Step, ...]]:
        order = Order(0, 0, n, max_steps, self.temperature, first, receipt=Receipt())
        async with self._slots:
            try:
                proposals = await self._models.propose(order, state)
            except BaseException:
                assert order.receipt is not None
                self.usage += order.receipt.owed
                raise
        self.usage += proposals.usage
        return proposals.candidates

    async def _go_on(self, state: State, steps: tuple[Step, ...], number: int) -> tuple[Step, ...]:
        """A rollout that stopped short, to its end. Its number keeps it apart from equal ones."""
        while not steps[-1].terminal and len(steps) < self.max_steps:
            more = await self._propose(_follow(state, steps), 1, self.max_steps - len(steps), number)
            if not more:
                break
            steps += more[0]
        return steps


def _follow(state: State, steps: Sequence[Step]) -> State:
    return State(state.question, (*state.steps, *steps), state.context)


def _warn(error: LedgerError) -> None:
    warnings.warn(str(error), stacklevel=2)


async def sample(roller: Roller, problem: Problem, n: int, start: State | None = None) -> list[tuple[State, bool]]:
    """What comes of `n` solutions of a problem: those that end, each once, oldest first, and whether they are right.

    `start` is what the policy is shown; None: the problem as it is.
    """
    start = problem.state if start is None else start
    found: dict[tuple[str, ...], tuple[State, bool]] = {}
    for rollout in (await roller.roll(problem, start, n)).found:
        if rollout.finished:
            state = _follow(start, rollout.steps)
            found.setdefault(texts(state), (state, rollout.right))
    return list(found.values())


def texts(state: State) -> tuple[str, ...]:
    """The steps of a state, as written."""
    return tuple(step.text for step in state.steps)
