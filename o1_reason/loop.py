"""An event loop on a thread of its own, for callers without one."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any


class Loop:
    """Runs coroutines for synchronous callers, also where an event loop runs already (notebooks)."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="o1-reason", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What `work` returns. It sees the context variables of the caller."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # KeyboardInterrupt in the waiting thread included
            future.cancel()
            raise

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, last: Coroutine[Any, Any, Any] | None = None) -> None:
        """Run `last`, cancel what is still under way and wait until it is gone, then end the thread."""
        try:
            if last is not None:
                self.run(last)
        finally:
            self.run(_cancel_all())
            self.run(self._loop.shutdown_asyncgens())  # adapters close their connections by it
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
