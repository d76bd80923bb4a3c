"""Model calls in flight: they belong to one run, and nothing of them outlives it."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from .budget import Budget

Key = TypeVar("Key")


class OverdueError(Exception):
    """A call ran longer than `Budget.call_seconds`."""


class Pool(Generic[Key]):
    """Runs calls, at most `budget.concurrency` at once by its user's care (`free`), and keeps what they brought.

    `finished` holds (key, outcome or exception) in order of completion. `expired` is set when `max_seconds` are
    over, counted from the first call, or at `deadline`, a time of the running loop. Not thread-safe: one event loop.
    """

    def __init__(self, budget: Budget, deadline: float | None = None) -> None:
        self._budget = budget
        self._running: dict[Key, tuple[asyncio.Task[None], float]] = {}  # with start times, oldest first
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.finished: deque[tuple[Key, Any]] = deque()
        self.expired = budget.max_seconds == 0
        self.deadline = deadline  # on the loop's clock; None until a call was started

    @property
    def free(self) -> int:
        """Slots for further calls. A call holds its slot until it is taken in, so that timing decides nothing."""
        return self._budget.concurrency - len(self._running) - len(self.finished)

    @property
    def busy(self) -> bool:
        """Something is running, or finished and not yet taken."""
        return bool(self._running or self.finished)

    def start(self, key: Key, call: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> None:
        """Run `call(*arguments)`; what it returns or raises will stand in `finished` under `key`."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            if self._budget.max_seconds is not None:
                self.deadline = self.deadline or loop.time() + self._budget.max_seconds
                self._timers["deadline"] = loop.call_at(self.deadline, self._expire)
        self._running[key] = loop.create_task(self._run(key, call, arguments)), loop.time()
        if "call" not in self._timers and self._budget.call_seconds is not None:
            self._timers["call"] = loop.call_later(self._budget.call_seconds, self._watch)

    async def _run(self, key: Key, call: Callable[..., Coroutine[Any, Any, Any]], arguments: tuple[Any, ...]) -> None:
        try:
            outcome = await call(*arguments)
        except asyncio.CancelledError as cancelled:
            if cancelled.args != ("overdue",):
                raise
            outcome = OverdueError(f"no answer within {self._budget.call_seconds} seconds")
        except Exception as error:
            outcome = error
        finally:
            self._running.pop(key, None)
        self.finished.append((key, outcome))
        self._wake()

    async def wait(self) -> None:
        """Until something has finished, or time is over, or nothing is running."""
        while self._running and not self.finished and not self.expired:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel all calls; returns their tasks."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        running = [task for task, _ in self._running.values()]
        for task in running:
            task.cancel()
        return running

    async def close(self) -> None:
        """Cancel all calls and wait until they are gone."""
        running = self.cancel()
        if running:
            await asyncio.wait(running, timeout=1.0)  # a plug-in that swallows its cancellation must not hang us

    def _expire(self) -> None:
        self.expired = True
        self._wake()

    def _watch(self) -> None:
        """Cancel calls that have run too long, and come back when the next one might have."""
        loop, limit = asyncio.get_running_loop(), self._budget.call_seconds
        del self._timers["call"]
        if limit is None:
            return
        for task, started in self._running.values():
            age = loop.time() - started
            if age >= limit * 0.999:
                task.cancel("overdue")
            else:
                self._timers["call"] = loop.call_later(limit - age, self._watch)
                break
