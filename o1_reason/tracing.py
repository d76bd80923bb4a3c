"""Calls of a search in the trace of the chat model run that they belong to."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, BaseCallbackManager, Callbacks
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, set_config_context
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

T = TypeVar("T")
_RUN: ContextVar[UUID | None] = ContextVar("o1_reason_run", default=None)  # LangChain does not tell it to `_astream`


class RunFinder(BaseCallbackHandler):
    """Remembers, in the context of the caller, the id of the chat model run that has just begun."""

    run_inline = True

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        _RUN.set(run_id)


def with_finder(callbacks: Callbacks) -> Callbacks:
    """`callbacks` of a model, and a `RunFinder`."""
    handlers: Sequence[BaseCallbackHandler]
    handlers = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or ()
    if any(isinstance(handler, RunFinder) for handler in handlers):
        return callbacks
    if isinstance(callbacks, BaseCallbackManager):
        found = callbacks.copy()
        found.add_handler(RunFinder(), inherit=False)
        return found
    return [*handlers, RunFinder()]


def traced(run_manager: Any) -> RunnableConfig:
    """The config of what runs inside a chat model run.

    Only tracers follow, since they build the tree: to other handlers, which count tokens or stream them, the search
    and the models inside it would be the same thing twice.
    """
    around = ensure_config()
    if run_manager is not None:
        handlers, run = run_manager.handlers, run_manager.run_id
    else:
        given = around.get("callbacks")
        handlers, run = (given.handlers if isinstance(given, BaseCallbackManager) else given or []), _RUN.get()
        _RUN.set(None)
    tracers: list[BaseCallbackHandler]
    tracers = [handler for handler in handlers if isinstance(handler, BaseTracer | AsyncBaseTracer)]
    return {**around, "callbacks": AsyncCallbackManager(tracers, inheritable_handlers=tracers, parent_run_id=run)}


async def inside(config: RunnableConfig, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """`work(*arguments)` with `config` around it. Cancelling it cancels the work, and waits for its end."""
    with set_config_context(config) as context:
        return await asyncio.get_running_loop().create_task(work(*arguments), context=context)
