"""The run: every solution goes to the verifier once, within a budget, and what it says is kept."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..budget import Budget, Meter
from ..errors import ConfigurationError, LedgerError, ModelError, UnjudgedError, VerifierError
from ..ledger import Ledger, identity_of, key_of, scores_data, scores_from
from ..mdp import NOTHING, Score, State, Usage
from ..pool import OverdueError, Pool
from ..prices import Prices
from ..protocols import Verifier, check_scores
from ..receipt import Receipt, current
from .data import Solution, Truth, settled

HOPELESS = 20  # calls that fail before any succeeds
UNREAD = "reply could not be read"


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
    unreadable  replies that could not be read, those asked again and those left out of a mean included
    replayed    solutions answered by the ledger alone
    usage       what all judgements cost, those replayed included; `paid` without those
    seconds     that calls took, summed over `timed` solutions; `wall`: that the run took
    """

    judged: list[Judged] = field(default_factory=list)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    unreadable: int = 0
    left_out: int = 0
    replayed: int = 0
    usage: Usage = NOTHING
    paid: Usage = NOTHING
    seconds: float = 0.0
    timed: int = 0
    wall: float = 0.0
    stop: str = "done"  # or "budget", "deadline"
    warning: str = ""  # the ledger could not be written


class _UnaffordableError(Exception):
    """The budget has nothing left for this call."""


@dataclass(slots=True, eq=False)
class _Call:
    """Solutions of one question that go to the verifier together."""

    solutions: list[Solution]
    receipt: Receipt
    asked: bool = False  # not all of it was in the ledger
    open: bool = False  # the verifier is at work on it
    unread: str = ""  # what was wrong with a reply that could not be read
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
        self._prices = Prices(None, verifier, self._meter)  # nothing is proposed here
        self._pool: Pool[_Call] = Pool(budget)
        self._running: set[_Call] = set()
        self._found = Judgement()
        self._failed_calls = 0

    async def run(self, solutions: Iterable[Solution], progress: Callable[[Judgement], None]) -> Judgement:
        """Judge `solutions`, in their order as slots are free. Raises VerifierError if the verifier only ever fails."""
        started = time.monotonic()
        unread = getattr(self._verifier, "parse_failures", 0)  # critics count them
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
        await self._settle()
        self._found.unreadable = getattr(self._verifier, "parse_failures", 0) - unread
        self._found.wall = time.monotonic() - started
        return self._found

    async def _settle(self) -> None:
        """Bring what was judged in the order of the file, with all answers compared."""
        judged = sorted(self._found.judged, key=lambda one: one.truth.line)
        truths = await settled([one.truth for one in judged])
        self._found.judged = [replace(one, truth=truth) for one, truth in zip(judged, truths, strict=True)]

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
        if not self._meter.set_aside(more):
            return False
        call.bound += more
        return True

    # One call.

    async def _score(self, call: _Call) -> list[tuple[float, ...] | None]:
        """The rewards of each solution; None where the verifier's reply could not be read."""
        current.set(call.receipt)
        states = [solution.state for solution in call.solutions]
        scores = await self._ask(call, states)
        return [score and await self._by_steps(call, state, score) for state, score in zip(states, scores, strict=True)]

    async def _by_steps(self, call: _Call, state: State, score: Score) -> tuple[float, ...] | None:
        """With `prefixes`, one reward a step even where the verifier gives one a state."""
        rewards = score.rewards
        if not self._prefixes or len(rewards) > 1 or len(state.steps) == 1:
            return rewards
        cuts = [State(state.question, state.steps[:k], state.context) for k in range(1, len(state.steps))]
        before = [cut.rewards[-1] for cut in await self._ask(call, cuts) if cut is not None]
        return (*before, *rewards) if len(before) == len(cuts) else None

    async def _ask(self, call: _Call, states: Sequence[State]) -> list[Score | None]:
        known = [await self._look_up(call, state) for state in states]
        missing = [i for i, score in enumerate(known) if score is None]
        if missing:
            for i, score in zip(missing, await self._pay(call, [states[i] for i in missing]), strict=True):
                if score is not None:
                    known[i] = score
                    await self._keep(call, states[i], score)
        return known

    async def _pay(self, call: _Call, states: Sequence[State]) -> Sequence[Score | None]:
        if self._found.stop == "budget" or not self._reserve(call, self._bound(states)):
            self._found.stop = "budget"  # and nothing cheaper either, lest the short solutions be over-represented
            raise _UnaffordableError
        call.asked = call.open = True
        call.receipt.free = call.bound.calls
        started = time.monotonic()
        try:
            scores: Sequence[Score | None] = check_scores(await self._verifier.score(states), states)
            usage = sum((score.usage for score in scores if score), NOTHING)
        except UnjudgedError as error:
            scores, call.unread = error.scores, str(error)
            if not any(scores):
                raise
            usage = _unfinished(call)
        self._found.seconds += time.monotonic() - started
        self._spend(usage)
        self._prices.remember("verifier", usage, len(states))
        self._meter.reserve(call.bound, -1)
        call.bound, call.receipt.usage, call.open = NOTHING, NOTHING, False  # so far all is paid
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

    # The ledger. Its keys are those of a search: what one has paid for, the other finds. Scores of several solutions
    # at once may depend on the company, so that is in their keys.

    def _key(self, call: _Call, state: State) -> str:
        company = [solution.state.text for solution in call.solutions]
        return key_of(self._identity, "score", state, **({"company": company} if len(company) > 1 else {}))

    async def _look_up(self, call: _Call, state: State) -> Score | None:
        if self._ledger is None:
            return None
        record = await self._ledger.get(self._key(call, state))
        if record is None:
            return None
        score = scores_from([record])[0]
        self._found.usage += score.usage
        return score

    async def _keep(self, call: _Call, state: State, score: Score) -> None:
        """A full disk must not lose a score that was paid for: the audit goes on, and says so."""
        if self._ledger is None:
            return
        try:
            await self._ledger.put(self._key(call, state), scores_data([score])[0])
        except LedgerError as error:
            self._found.warning = str(error)

    # What calls brought.

    def _take_in(self, call: _Call, outcome: Sequence[tuple[float, ...] | None] | Exception) -> None:
        self._running.discard(call)
        self._meter.reserve(call.bound, -1)
        found, size = self._found, len(call.solutions)
        if isinstance(outcome, _UnaffordableError):
            found.left_out += size
            return
        if isinstance(outcome, ConfigurationError | LedgerError):
            raise outcome
        if isinstance(outcome, Exception):
            self._spend(_unfinished(call))
            self._fail(_kind(outcome), str(outcome) or type(outcome).__name__, size)
            self._give_up(outcome)
            judged: Sequence[tuple[float, ...] | None] = [None] * size
        else:
            found.timed += size if call.asked else 0
            found.replayed += 0 if call.asked else size
            judged, unread = outcome, outcome.count(None)
            if unread:
                self._fail(UNREAD, call.unread, unread)
        for solution, rewards in zip(call.solutions, judged, strict=True):
            found.judged.append(Judged(solution.truth, len(solution.state.steps), rewards))

    def _fail(self, kind: str, message: str, solutions: int) -> None:
        count, first = self._found.failures.get(kind, (0, message))
        self._found.failures[kind] = count + solutions, first

    def _give_up(self, error: Exception) -> None:
        """Raises VerifierError once it is plain that no call will succeed."""
        self._failed_calls += 1
        if self._failed_calls == HOPELESS and all(one.rewards is None for one in self._found.judged):
            raise VerifierError(f"the first {HOPELESS} calls of the verifier failed; the last: {error}") from error


def _unfinished(call: _Call) -> Usage:
    """What the verifier took for a call that it did not answer."""
    if not call.open:
        return NOTHING
    return call.receipt.owed


def _kind(error: Exception) -> str:
    if isinstance(error, UnjudgedError):
        return UNREAD
    if isinstance(error, VerifierError):
        return "no valid score"
    if isinstance(error, OverdueError):
        return "no answer in time"
    return "endpoint failed" if isinstance(error, ModelError | OSError) else type(error).__name__
