"""Where searches are admitted, run, counted and cancelled."""

import asyncio
import logging
import math
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..budget import Budget
from ..driver import drive
from ..engine import Event, Search
from ..errors import O1ReasonError
from ..learn import TraceStore, trace_of
from ..ledger import Ledger
from ..protocols import Strategy
from ..result import Result
from ..view import Feed
from .metrics import Metrics
from .models import Model

log = logging.getLogger("o1_reason.serve")


class BusyError(Exception):
    """All places, and those in the queue, are taken; `retry_after` seconds from now one may be free."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places are taken; try again in {retry_after} seconds")
        self.retry_after = retry_after


class ClosingError(Exception):
    """The server is shutting down."""


@dataclass(frozen=True, slots=True)
class Job:
    """A search that somebody wants."""

    model: Model
    question: str
    context: tuple[dict[str, Any], ...]
    strategy: Strategy
    budget: Budget
    seed: int

    @property
    def judged(self) -> bool:
        """Whether a verifier scores its nodes."""
        return self.model.verifier is not None and getattr(self.strategy, "uses_verifier", True)


@dataclass(frozen=True, slots=True)
class Shown:
    """A search that can be looked at. `owner`: whose it is, to whom alone it is listed."""

    feed: Feed
    model: str
    owner: bytes
    began: float = field(default_factory=time.time)


class Run:
    """A search that was admitted: its `task`, and what has happened in it.

    `name`: that under which it can be looked at, if it can; nobody guesses it.
    """

    task: asyncio.Task[Result]

    def __init__(self, name: str | None, feed: Feed | None) -> None:
        self.name, self.feed = name, feed
        self.seconds = 0.0  # that it has run
        self._events: list[Event] = []
        self._changed = asyncio.Event()

    def take(self, event: Event | None) -> None:
        """Take in an event of the search; None: it has ended."""
        if event is not None:
            self._events.append(event)
            if self.feed is not None:
                self.feed.take(event)
        self._changed.set()

    async def news(self, seconds: float) -> list[Event]:
        """What has happened since the last call, as soon as something has; none: `seconds` or the search are over."""
        if not self._events and not self.task.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        self._changed.clear()
        events, self._events = self._events, []
        return events

    async def result(self) -> Result:
        """Raises what the search raised; ClosingError if the server's end came first."""
        await asyncio.wait({self.task})
        if self.task.cancelled():
            raise ClosingError
        return self.task.result()

    async def stop(self) -> None:
        """Cancel the search and all its calls, and wait until they are gone."""
        self.task.cancel()
        await asyncio.wait({self.task})


class Desk:
    """At most `places` searches at once, first come, first served, and `queue` more that wait. One event loop.

    A search holds its place until it has ended, whether or not anybody still listens. The `live` latest can be looked
    at: `shown` by their names. `record` takes in the traces of those that end with a result.
    """

    def __init__(
        self, places: int, queue: int, ledger: Ledger | None = None, live: int = 0, record: TraceStore | None = None
    ) -> None:
        self.metrics = Metrics()
        self.ledger, self.record = ledger, record
        self.running = self.waiting = 0
        self.closing = False
        self._places, self._queue = places, queue
        self._free = asyncio.Semaphore(places)
        self._tasks: set[asyncio.Task[Result]] = set()
        self._queued: set[asyncio.Task[Result]] = set()
        self.shown: OrderedDict[str, Shown] = OrderedDict()
        self._live = live
        self._mean = 1.0  # seconds a search takes, the latest weighing most

    def admit(self, job: Job, owner: bytes = b"") -> Run:
        """Start a search of `owner`, or queue it. Raises BusyError and ClosingError."""
        if self.closing:
            self.metrics.add("o1_reason_refused_total", reason="closing")
            raise ClosingError
        ahead = len(self._tasks)
        if ahead >= self._places + self._queue:
            self.metrics.add("o1_reason_refused_total", reason="busy")
            raise BusyError(min(60, max(1, math.ceil(ahead / self._places * self._mean))))
        run = self._show(job, owner) if self._live else Run(None, None)
        run.task = asyncio.get_running_loop().create_task(self._serve(job, run))
        self._tasks.add(run.task)
        self._queued.add(run.task)
        self.waiting += 1
        run.task.add_done_callback(lambda task: self._ended(task, job, run))
        return run

    def _show(self, job: Job, owner: bytes) -> Run:
        name, feed = secrets.token_urlsafe(16), Feed(job.question)
        self.shown[name] = Shown(feed, job.model.id, owner)
        while len(self.shown) > self._live:
            self.shown.popitem(last=False)
        return Run(name, feed)

    async def _serve(self, job: Job, run: Run) -> Result:
        async with self._free:
            self._started(run.task)
            search = Search(
                job.question, job.model.policy, job.model.verifier, job.strategy, job.budget, context=job.context,
                seed=job.seed, ledger=self.ledger, on_event=run.take,
            )  # fmt: skip
            self.running += 1
            started = time.monotonic()
            try:
                result = await drive(search)
            finally:
                self.running -= 1
                run.seconds = seconds = time.monotonic() - started
                self._mean += (seconds - self._mean) / 8
                self.metrics.took(job.model.id, seconds)
                self.metrics.spent(job.model.id, "policy", search.meter.policy)
                self.metrics.spent(job.model.id, "verifier", search.meter.verifier)
            await self._keep(job, result)
            return result

    async def _keep(self, job: Job, result: Result) -> None:
        """Record the search, if searches are recorded. An answer that cannot be recorded is given all the same."""
        if self.record is None:
            return
        try:
            model = job.model
            await self.record.add(trace_of(result, model.policy, model.verifier, job.strategy, job.budget))
        except O1ReasonError as error:
            log.error("a search could not be recorded: %s", error)

    def _started(self, task: asyncio.Task[Result]) -> None:
        if task in self._queued:
            self._queued.discard(task)
            self.waiting -= 1

    def _ended(self, task: asyncio.Task[Result], job: Job, run: Run) -> None:
        self._started(task)
        self._tasks.discard(task)
        if task.cancelled():
            outcome = why = "cancelled"
        elif (error := task.exception()) is not None:
            outcome = "failed"
            why = f"failed: {error}" if isinstance(error, O1ReasonError) else outcome
        else:
            outcome, why = "answered" if task.result().answered else "unanswered", ""
        if run.feed is not None:
            run.feed.fail(why) if why else run.feed.end(task.result(), run.seconds)
        self.metrics.add("o1_reason_searches_total", model=job.model.id, outcome=outcome)
        run.take(None)

    def page(self) -> str:
        """Everything for Prometheus."""
        gauges = {"o1_reason_searches_running": self.running, "o1_reason_searches_waiting": self.waiting}
        return self.metrics.render(gauges)

    async def drain(self, grace: float) -> None:
        """Admit nothing more, cancel what waits, give what runs `grace` seconds to end, then cancel that, too."""
        self.closing = True
        for task in self._queued:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel all searches, and wait until they are gone."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
