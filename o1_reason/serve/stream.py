"""Server-sent events by ASGI, and work that ends when the client has hung up."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Send

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def while_there(work: Coroutine[Any, Any, None], gone: Coroutine[Any, Any, None]) -> None:
    """Do `work` until it is done or `gone` is, each in a task of its own; the other one is ended by plain cancellation.

    Starlette's StreamingResponse would end them by cancelling a scope, under which no clean-up that awaits can run, and
    without a stream nobody would notice that the client is gone.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def hung_up(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_text(send: Send, text: str, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": text.encode(errors="replace"), "more_body": more})


def event(data: Any, name: str | None = None) -> str:
    """A server-sent event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"
