"""What happens in a search, for pages that are open while it runs: kept from its start, told as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from .data import Picture, begun, behind, of_result
from .page import as_json, render

BATCH = 1000  # events in one message, at most
FRAME = 0.05  # seconds between two messages, so that a page draws once for all that has happened in between
QUIET = 10.0  # seconds between comments where nothing happens: proxies keep the stream open

TOLD = {
    "created": ("event", "parent", "text", "terminal", "answer"),
    "scored": ("event", "node", "reward"),
    "failed": ("event", "node", "error"),
    "restarted": ("event", "question"),
}


class Feed:
    """One search. Not thread-safe: one event loop.

    All who look read the same log, each at a pace of its own, so nobody who is slow or late holds up the search or
    costs memory. Once it has ended the log makes way for the whole search.
    """

    def __init__(self, question: str) -> None:
        self.question = question
        self.steps = 0
        self._started = time.monotonic()
        self.state = "waiting"  # "running", "answered", "unanswered", or how it failed
        self._log: list[str] = []
        self._scored: dict[int, int] = {}  # after how many nodes a score came
        self._died: dict[int, int] = {}
        self._found: tuple[Any, float] | None = None
        self._over = False
        self._waiting: set[asyncio.Future[None]] = set()

    def take(self, event: dict[str, Any]) -> None:
        """Take in an event of the search."""
        kind = event["event"]
        if kind == "restarted":
            event = {**event, "question": behind(self.question, event["steps"])}
        elif kind not in TOLD or event.get("node") is None:
            return
        self.state = "running"
        if kind == "created":
            self.steps += 1
        elif kind == "restarted":
            self.steps, self._scored, self._died = 0, {}, {}
        else:
            (self._scored if kind == "scored" else self._died)[event["node"]] = self.steps + 1
        self._log.append(json.dumps({name: event[name] for name in TOLD[kind]}, separators=(",", ":")))
        self._wake()

    def end(self, result: Any, seconds: float) -> None:
        """The search has ended with a `Result`, after `seconds`."""
        self.state = "answered" if result.answered else "unanswered"
        self._found, self._log = (result, seconds), []
        self._finish()

    def fail(self, why: str) -> None:
        """The search has ended without one."""
        self.state = why
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    @property
    def over(self) -> bool:
        return self._over

    def picture(self) -> Picture:
        """The whole search, with the time at which each score came. Only where it has ended with a result."""
        assert self._found is not None
        picture = of_result(*self._found)
        history = {
            name: [times.get(i) for i in range(len(picture))]
            for name, times in (("scored", self._scored), ("died", self._died))
        }
        return replace(picture, columns={**picture.columns, **history})

    def page(self, events: str = "") -> str:
        """The page: one that grows while it hears from `events`, the path of `stream`, or the whole search."""
        if self._found is not None:
            return render(self.picture())
        return render(begun(self.question, round(time.monotonic() - self._started, 1)), events)

    async def stream(self, at: int = 0) -> AsyncIterator[str]:
        """Server-sent events from the search's event `at` on: batches (grow), then all of it (end) or why not (failed).

        A batch's id is the place to go on from, which browsers send as Last-Event-ID.
        """
        while self._found is None:
            batch = self._log[at : at + BATCH]
            if batch:
                at += len(batch)
                yield f"id: {at}\nevent: grow\ndata: [{','.join(batch)}]\n\n"
                await asyncio.sleep(0 if at < len(self._log) else FRAME)
            elif self._over:
                yield f"event: failed\ndata: {json.dumps(self.state)}\n\n"
                return
            elif not await self._news():
                yield ": searching\n\n"
        yield f"event: end\ndata: {as_json(self.picture())}\n\n"

    async def _news(self) -> bool:
        """Wait until something happens; False: nothing does."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout(QUIET):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True
