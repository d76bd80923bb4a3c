"""How many requests an endpoint gets at once: one limit for all searches of the process, whatever loop they run on.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does it: a 429 halves the limit, once for all
requests that were under way together, and every success widens it by 1/limit, so that a full round of successes
adds one. A Retry-After holds back every caller, not only the one that was told.
"""

import asyncio
import hashlib
import random
import threading
import time
from collections import deque
from weakref import WeakValueDictionary


class Limit:
    """Permits of one endpoint, first come, first served. Thread-safe; a cancelled waiter leaves nothing behind."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = float(most)  # permits at present, in [1, most]
        self.held = 0
        self._epoch = 0  # of the last decrease
        self._not_before = 0.0  # on the monotonic clock
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._lock = threading.Lock()

    async def acquire(self) -> int:
        """Waits for a permit and for the end of a Retry-After. Returns what `succeeded` and `refused` want to know."""
        await self._permit()
        try:
            while (pause := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110 - it may be put off meanwhile
                await asyncio.sleep(pause * random.uniform(1.0, 1.1))
        except BaseException:
            self.release()
            raise
        return self._epoch

    async def _permit(self) -> None:
        with self._lock:
            if self.held < int(self.now) and not self._waiting:
                self.held += 1
                return
            loop = asyncio.get_running_loop()
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append((loop, turn))
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                still = next((entry for entry in self._waiting if entry[1] is turn), None)
                if still is not None:
                    self._waiting.remove(still)
            if still is None and turn.done() and not turn.cancelled():  # the permit came with the cancellation
                self.release()
            raise

    def release(self) -> None:
        """Give a permit back."""
        with self._lock:
            self.held -= 1
        self._grant()

    def _grant(self) -> None:
        with self._lock:
            while self._waiting and self.held < int(self.now):
                loop, turn = self._waiting.popleft()
                try:
                    loop.call_soon_threadsafe(self._hand_over, turn)
                except RuntimeError:  # its loop is gone
                    continue
                self.held += 1

    def _hand_over(self, turn: "asyncio.Future[None]") -> None:
        if turn.done():  # cancelled between the grant and now
            self.release()
        else:
            turn.set_result(None)

    def succeeded(self) -> None:
        """A request was served."""
        with self._lock:
            self.now = min(float(self.most), self.now + 1.0 / self.now)
        self._grant()

    def refused(self, epoch: int, retry_after: float | None) -> None:
        """A request that started in `epoch` got a 429, with its Retry-After in seconds."""
        with self._lock:
            if epoch == self._epoch:
                self._epoch += 1
                self.now = max(1.0, self.now / 2)
            if retry_after is not None:
                self._not_before = max(self._not_before, time.monotonic() + retry_after)


_LIMITS: "WeakValueDictionary[str, Limit]" = WeakValueDictionary()  # the process is what is limited
_LOCK = threading.Lock()


def limit_of(endpoint: str, api_key: str, most: int) -> Limit:
    """The limit that all who use this endpoint with this key share; the narrowest wish holds."""
    key = f"{endpoint} {hashlib.sha256(api_key.encode()).hexdigest()}"
    with _LOCK:
        limit = _LIMITS.get(key)
        if limit is None:
            limit = _LIMITS[key] = Limit(most)
        elif most < limit.most:
            limit.most, limit.now = most, min(limit.now, float(most))
        return limit
