"""An event loop for callers without one: nothing is left when it is closed."""

import asyncio
import contextvars
import threading

import pytest

from o1_reason.loop import Loop


def test_closing_it_ends_its_tasks_and_its_thread():
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("task")

    async def begin() -> "asyncio.Task[None]":
        task = asyncio.create_task(endless())
        await asyncio.sleep(0)
        return task

    loop = Loop()
    task = loop.run(begin())
    loop.close()
    assert ended == ["task"]
    assert task.cancelled()
    assert not [thread for thread in threading.enumerate() if thread.name == "o1-reason"]


def test_it_is_closed_even_if_the_last_work_fails():
    async def fails() -> None:
        raise ValueError("last")

    loop = Loop()
    with pytest.raises(ValueError, match="last"):
        loop.close(fails())
    assert not [thread for thread in threading.enumerate() if thread.name == "o1-reason"]


async def test_work_sees_the_callers_context_also_inside_a_running_loop():
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("caller")

    async def read() -> str:
        return name.get()

    loop = Loop()
    assert loop.run(read()) == "caller"
    loop.close()
