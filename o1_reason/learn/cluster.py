"""Ray: the few calls of it that there are, off the event loop. It is imported when a cluster is asked for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from pickle import PicklingError
from typing import Any

from .. import errors
from ..errors import ConfigurationError, O1ReasonError
from ..ledger import Ledger, SQLiteLedger, resolve_ledger

ATTEMPTS = 6  # a task is given up when so many workers have died of it
LOCAL = {"include_dashboard": False, "logging_level": "ERROR"}


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Any]:
    """The module ray, connected; where the program is not connected yet, it is for as long as this lasts."""
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError("running on a cluster needs Ray: pip install 'o1-reason[ray]'") from error
    mine = not ray.is_initialized()
    if mine:
        options = LOCAL if address == "local" else {}
        try:
            await asyncio.to_thread(ray.init, address=address, log_to_driver=False, **options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise ConfigurationError(
                f"there is no Ray cluster at {address!r} ({error}); start one (ray start --head), or use the address "
                '"local"'
            ) from error
    try:
        yield ray
    finally:
        if mine:
            await asyncio.to_thread(ray.shutdown)


async def submitter(ray: Any, function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], asyncio.Future[Any]]:
    """What starts `function` with an argument on the cluster and returns its future."""
    try:
        stored = await asyncio.to_thread(ray.put, function)
    except (TypeError, PicklingError) as error:
        raise ConfigurationError(
            f"Ray cannot carry what the tasks need ({error}); give policy and verifier by name (ADAPTER:MODEL), and "
            "functions of modules that the workers can import"
        ) from error
    task = ray.remote(max_retries=ATTEMPTS - 1)(_work)
    return lambda argument: asyncio.ensure_future(_await(ray, task.remote(stored, argument)))


def _work(function: Callable[[Any], Awaitable[Any]], argument: Any) -> tuple[str, Any]:
    """In the worker. Exceptions travel as text: not all of them survive being pickled."""

    async def call() -> Any:
        return await function(argument)

    try:
        return "", asyncio.run(call())
    except Exception as error:
        return type(error).__name__, str(error) or type(error).__name__


async def _await(ray: Any, reference: Any) -> Any:
    try:
        kind, outcome = await asyncio.wrap_future(reference.future())
    except asyncio.CancelledError:
        ray.cancel(reference, force=True)  # asked kindly, a worker may miss it and sleep on
        raise
    except ray.exceptions.RayTaskError as error:
        raise ConfigurationError(
            f"the workers cannot run this task; what it is made of must be modules that they can import: {error}"
        ) from error
    except ray.exceptions.RayError as error:
        raise O1ReasonError(f"{ATTEMPTS} workers died of this task, or the cluster is gone: {error}") from error
    if not kind:
        return outcome
    known = getattr(errors, "VerifierError" if kind == "UnjudgedError" else kind, None)
    raise known(outcome) if known else O1ReasonError(f"{kind}: {outcome}")


class _Bookkeeper:
    """The actor that keeps the ledger."""

    def __init__(self, given: Any) -> None:
        ledger = resolve_ledger(given)
        assert ledger is not None
        self.ledger = ledger

    async def get(self, key: str) -> dict[str, Any] | None:
        return await self.ledger.get(key)

    async def put(self, key: str, record: dict[str, Any]) -> None:
        await self.ledger.put(key, record)

    async def close(self) -> None:
        await self.ledger.close()


class RemoteLedger:
    """A ledger whose calls go to the bookkeeper."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def get(self, key: str) -> dict[str, Any] | None:
        return await self._actor.get.remote(key)

    async def put(self, key: str, record: dict[str, Any]) -> None:
        await self._actor.put.remote(key, record)

    async def close(self) -> None:
        """The bookkeeper belongs to whoever started it."""


def _portable(given: Any) -> Any:
    """A ledger as it can travel to another process, which may work in another folder."""
    path = given.path if isinstance(given, SQLiteLedger) else given
    return Path(path).absolute() if isinstance(path, str | Path) else given


@asynccontextmanager
async def remote_ledger(ray: Any, given: Any) -> AsyncIterator[Ledger]:
    """A bookkeeper beside this program, which starts again where it dies: all it knows is in its file."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    try:
        actor = ray.remote(**options)(_Bookkeeper).remote(_portable(given))
    except TypeError as error:
        raise ConfigurationError(f"Ray cannot carry this ledger ({error}); give a path") from error
    try:
        yield RemoteLedger(actor)
    finally:
        with suppress(ray.exceptions.RayError):  # the cluster may be gone
            await actor.close.remote()
        ray.kill(actor)
