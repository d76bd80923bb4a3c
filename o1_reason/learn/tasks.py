"""Many independent tasks: at once on this machine, or on a Ray cluster, with the same outcome."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from ..errors import ConfigurationError
from ..ledger import Ledger, resolve_ledger

A = TypeVar("A")
T = TypeVar("T")
Function = Callable[[A], Awaitable[T]]


async def run_tasks(
    function: Function[A, T], arguments: Iterable[A], *, concurrency: int = 4, ray: str | None = None
) -> AsyncGenerator[tuple[A, T | Exception], None]:
    """Each of `arguments` with what `function` returns for it, or the exception it raises, as they finish.

    At most `concurrency` run at once; `arguments` are taken as there is room. Closing the iterator early (use
    ``contextlib.aclosing``) cancels what runs. The function must be idempotent: with `ray` it may run again.

    ray    None: here. "local": on a Ray cluster of this machine, started and ended with the iterator. Else the
           address of a cluster, or "auto". One that the program is connected to already is used as it is. There,
           `function` and `arguments` have to be picklable and o1-reason installed; a task whose worker dies is run
           again. An exception comes back as one of `errors` with the same message

    Raises ConfigurationError for a concurrency below 1, and where Ray is not installed, cannot be reached or cannot
    carry the function.
    """
    if concurrency < 1:
        raise ConfigurationError(f"concurrency must be an integer >= 1; got {concurrency!r}")
    async with _starter(function, ray) as start, aclosing(_as_completed(start, arguments, concurrency)) as outcomes:
        async for outcome in outcomes:
            yield outcome


@asynccontextmanager
async def _starter(function: Function[A, T], ray: str | None) -> AsyncIterator[Callable[[A], asyncio.Future[T]]]:
    if ray is None:
        yield lambda argument: asyncio.ensure_future(function(argument))
        return
    from .cluster import connected, submitter

    async with connected(ray) as module:
        yield await submitter(module, function)


async def _as_completed(
    start: Callable[[A], asyncio.Future[T]], arguments: Iterable[A], concurrency: int
) -> AsyncGenerator[tuple[A, T | Exception], None]:
    waiting = iter(arguments)
    running: dict[asyncio.Future[T], A] = {}
    more = True
    try:
        while more or running:
            while more and len(running) < concurrency:
                try:
                    argument = next(waiting)
                except StopIteration:
                    more = False
                else:
                    running[start(argument)] = argument
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for future in [future for future in running if future in done]:  # of several, the oldest first
                argument, error = running.pop(future), future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield argument, future.result() if error is None else error
    finally:
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def shared_ledger(given: Any, ray: str | None) -> AsyncIterator[Ledger | None]:
    """What `ledger=` takes, as a ledger that tasks of `run_tasks` can use, wherever they run.

    On a cluster there is one, in a process of its own beside the program that asked: a call that a worker paid for is
    kept though the worker dies, and its task, run again on another machine, finds it.
    """
    if ray is not None and given is not None:
        from .cluster import connected, remote_ledger

        async with connected(ray) as module, remote_ledger(module, given) as ledger:
            yield ledger
        return
    book = resolve_ledger(given)
    try:
        yield book
    finally:
        if book is not None and book is not given:
            await book.close()
