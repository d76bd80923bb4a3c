"""The run: every solution goes to the verifier once, within a budget, and what it says is kept."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from ..answers import canonical
from ..budget import Budget, Meter
from ..errors import ConfigurationError, LedgerError, ModelError, VerifierError
from ..ledger import Ledger, identity_of, key_of, scores_data, scores_from
from ..mdp import NOTHING, Score, State, Usage
from ..pool import Pool
from ..prices import Prices
from ..protocols import Policy, Verifier, check_scores
from ..receipt import Receipt, current
from .data import Solution, Truth

HOPELESS = 20  # calls that fail before any succeeds
FAILED = Usage(calls=1)  # a call was made, and nobody told what it cost


@dataclass(frozen=True, slots=True)
class Judged:
    """A solution's truth, and the verifier's rewards for it: one per step, or one in all; None: its call failed."""

    truth: Truth
    steps: int
    rewards: tuple[float, ...] | None


@dataclass(slots=True)
class Judgement:
    """What a run brought.

    failures    kind of failure: how many solutions, and the first message
    left_out    solutions that the budget had nothing left for
    replayed    solutions answered by the ledger alone
    usage       what all judgements cost, those replayed included; `paid` without those
    seconds     that calls took, summed over `timed` solutions; `wall`: that the run took
    """

    judged: list[Judged] = field(default_factory=list)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    left_out: int = 0
    replayed: int = 0
    usage: Usage = NOTHING
    paid: Usage = NOTHING
    seconds: float = 0.0
    timed: int = 0
    wall: float = 0.0
    stop: str = "done"  # or "budget", "deadline"
    warning: str = ""  # the ledger could not be written


class _Unaffordable(Exception):
    pass


@dataclass(slots=True, eq=False)
class _Call:
    """Solutions of one question that go to the verifier together."""

    solutions: list[Solution]
    receipt: Receipt
    asked: bool = False  # not all of it was in the ledger
    open: bool = False  # the verifier is at work on it
    bound: Usage = NOTHING  # set aside while it runs


class Judge:
    """Has a verifier score solutions. For one run, on one event loop."""

    def __init__(
        self, verifier: Verifier, budget: Budget, ledger: Ledger | None, *, batch: int = 1, prefixes: bool = False
    ) -> None:
        """Raises ConfigurationError if a ledger is given to what has no identity."""
        if batch < 1:
            raise ConfigurationError(f"batch must be an integer >= 1; got {batch}")
        self._verifier, self._ledger, self._batch, self._prefixes = verifier, ledger, batch, prefixes
        self._identity = identity_of(verifier, "verifier") if ledger else ""
        self._meter = Meter(budget)
        self._prices = Prices(cast(Policy, None), verifier, self._meter)  # nothing is proposed here
        self._pool: Pool[_Call] = Pool(budget)
        self._running: set[_Call] = set()
        self._found = Judgement()
        self._failed_calls = 0

    async def run(self, solutions: Iterable[Solution], progress: Callable[[Judgement], None]) -> Judgement:
        """Judge `solutions`, in their order as slots are free. Raises VerifierError if the verifier only ever fails."""
        started = time.monotonic()
        calls = self._calls(solutions)
        try:
            more = True
            while more or self._pool.busy:
                while more and self._pool.free > 0 and not self._pool.expired:
                    more = self._start(next(calls, None))
                await self._pool.wait()
                while self._pool.finished:
                    self._take_in(*self._pool.finished.popleft())
                progress(self._found)
                if self._pool.expired:
                    self._found.stop = "deadline"
                    break
        finally:
            await self._pool.close()
            for call in self._running:  # cancelled
                self._spend(_unfinished(call))
        self._found.left_out += sum(len(call.solutions) for call in self._running)
        self._found.left_out += sum(len(call.solutions) for call in calls)
        self._found.judged = await settle(self._found.judged)
        self._found.wall = time.monotonic() - started
        return self._found

    def _calls(self, solutions: Iterable[Solution]) -> Iterator[_Call]:
        """Neighbours of one question together, up to `batch`."""
        held: list[Solution] = []
        for solution in solutions:
            if held and (len(held) == self._batch or held[0].truth.group != solution.truth.group):
                yield _Call(held, Receipt())
                held = []
            held.append(solution)
        if held:
            yield _Call(held, Receipt())

    def _start(self, call: _Call | None) -> bool:
        if call is not None:
            self._running.add(call)
            self._pool.start(call, self._score, call)
            call.receipt.deadline = self._pool.deadline
            call.receipt.reserve = lambda n: self._reserve(call, Usage(calls=n))
        return call is not None

    def _reserve(self, call: _Call, more: Usage) -> bool:
        if not self._meter.fits(more):
            return False
        self._meter.reserve(more)
        call.bound += more
        return True

    # One call.

    async def _score(self, call: _Call) -> list[Score]:
        """A score for each solution; with `prefixes`, one reward for each step even if the verifier gives one a state."""
        current.set(call.receipt)
        states = [solution.state for solution in call.solutions]
        scores = await self._ask(call, states)
        if not self._prefixes:
            return scores
        for i, state in enumerate(states):
            if len(scores[i].rewards) == 1 < len(state.steps):
                cuts = [State(state.question, state.steps[:k], state.context) for k in range(1, len(state.steps))]
                before = await self._ask(call, cuts)
                usage = sum((score.usage for score in before), scores[i].usage)
                scores[i] = Score((*(score.rewards[-1] for score in before), scores[i].rewards[0]), usage=usage)
        return scores

    async def _ask(self, call: _Call, states: Sequence[State]) -> list[Score]:
        known = [await self._look_up(state) for state in states]
        missing = [i for i, score in enumerate(known) if score is None]
        if missing:
            asked = [states[i] for i in missing]
            for i, score in zip(missing, await self._pay(call, asked), strict=True):
                known[i] = score
                await self._keep(states[i], score)
        return [score for score in known if score is not None]

    async def _pay(self, call: _Call, states: Sequence[State]) -> Sequence[Score]:
        bound = self._bound(states)
        if self._found.stop == "budget" or not self._reserve(call, bound):
            self._found.stop = "budget"  # and nothing cheaper either, lest the short solutions be over-represented
            raise _Unaffordable
        call.asked = call.open = True
        started = time.monotonic()
        scores = check_scores(await self._verifier.score(states), states)
        call.open = False
        self._found.seconds += time.monotonic() - started
        usage = sum((score.usage for score in scores), NOTHING)
        self._spend(usage)
        self._prices.remember("verifier", usage, len(states))
        call.receipt.usage = NOTHING  # so far all is paid
        return scores

    def _bound(self, states: Sequence[State]) -> Usage:
        if not self._meter.limited:
            return NOTHING
        total = NOTHING
        for state in states:
            before = State(state.question, state.steps[:-1], state.context)
            total += self._prices.bound("verifier", before, 1, 1)
        return total if hasattr(self._verifier, "bound") else replace(total, calls=1)

    def _spend(self, usage: Usage) -> None:
        self._meter.spend("verifier", usage)
        self._found.paid += usage
        self._found.usage += usage

    # The ledger. Its keys are those of a search: what one has paid for, the other finds.

    async def _look_up(self, state: State) -> Score | None:
        if self._ledger is None:
            return None
        record = await self._ledger.get(key_of(self._identity, "score", state))
        if record is None:
            return None
        score = scores_from([record])[0]
        self._found.usage += score.usage
        return score

    async def _keep(self, state: State, score: Score) -> None:
        """A full disk must not lose a score that was paid for: the audit goes on, and says so."""
        if self._ledger is None:
            return
        try:
            await self._ledger.put(key_of(self._identity, "score", state), scores_data([score])[0])
        except LedgerError as error:
            self._found.warning = str(error)

    # What calls brought.

    def _take_in(self, call: _Call, outcome: list[Score] | Exception) -> None:
        self._running.discard(call)
        self._meter.reserve(call.bound, -1)
        found = self._found
        if isinstance(outcome, _Unaffordable):
            found.left_out += len(call.solutions)
        elif isinstance(outcome, ConfigurationError | LedgerError):
            raise outcome
        elif isinstance(outcome, Exception):
            self._fail(call, outcome)
        else:
            if call.asked:
                found.timed += len(call.solutions)
            else:
                found.replayed += len(call.solutions)
            for solution, score in zip(call.solutions, outcome, strict=True):
                found.judged.append(Judged(solution.truth, len(solution.state.steps), score.rewards))

    def _fail(self, call: _Call, error: Exception) -> None:
        self._spend(_unfinished(call))
        kind = _kind(error)
        count, first = self._found.failures.get(kind, (0, str(error) or type(error).__name__))
        self._found.failures[kind] = count + len(call.solutions), first
        self._failed_calls += 1
        if self._failed_calls == HOPELESS and all(judged.rewards is None for judged in self._found.judged):
            raise VerifierError(f"the first {HOPELESS} calls of the verifier failed; the last: {error}") from error
        for solution in call.solutions:
            self._found.judged.append(Judged(solution.truth, len(solution.state.steps), None))


def _unfinished(call: _Call) -> Usage:
    """What the verifier took for a call that it did not answer."""
    if not call.open:
        return NOTHING
    return call.receipt.usage if call.receipt.usage.calls else FAILED


def _kind(error: Exception) -> str:
    if isinstance(error, VerifierError):
        return "reply unreadable, or no valid score"
    if isinstance(error, ModelError | OSError):
        return "endpoint failed"
    return type(error).__name__


async def settle(judged: Iterable[Judged]) -> list[Judged]:
    """In the order of the file, each with the key of its answer, and with `correct` where `gold` tells it."""
    order = sorted(judged, key=lambda one: one.truth.line)
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(order):
        groups.setdefault(one.truth.group, []).append(i)
    for members in groups.values():
        truths = [order[i].truth for i in members]
        texts = sorted({text for truth in truths for text in (truth.answer, truth.gold) if text is not None})
        keys = dict(zip(texts, await answer_keys(texts), strict=True))
        for i, truth in zip(members, truths, strict=True):
            order[i] = replace(order[i], truth=_settled(truth, keys))
        await asyncio.sleep(0)
    return order


def _settled(truth: Truth, keys: dict[str, str]) -> Truth:
    correct, key = truth.correct, truth.key
    if correct is None and truth.gold is not None:
        correct = truth.answer is not None and keys[truth.answer] == keys[truth.gold]
    if key is None and truth.answer is not None:
        key = keys[truth.answer]
    return replace(truth, key=key, correct=correct)


async def answer_keys(answers: Sequence[str]) -> list[str]:
    return [canonical(answer) for answer in answers]
