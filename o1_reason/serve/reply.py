"""One chat completion under way: it owns its search, and takes it along when the client goes away."""

import asyncio
import json
import logging
import time
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ..engine import Event
from ..errors import ConfigurationError, O1ReasonError
from .desk import BusyError, ClosingError, Desk, Job, Run
from .story import Story
from .wire import ApiError, Completion, answer_text

log = logging.getLogger("o1_reason.serve")

PATIENCE = 1.0  # seconds a stream's status waits for the first event, so that an early error still has its own status
QUIET = 10.0  # seconds between comments in a stream where nothing happens: proxies keep it open

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class ChatReply(Response):
    """Admits the search, waits for its answer or streams it, and cancels it once the client has hung up.

    The search runs in a task of its own, and so does the wait for the client's end; both are ended by plain
    cancellation. Starlette's StreamingResponse would end them by cancelling a scope, under which no clean-up that
    awaits can run, and without a stream nobody would notice that the client is gone.
    """

    def __init__(self, desk: Desk, job: Job, id: str, stream: bool, include_usage: bool) -> None:
        super().__init__()
        self._desk, self._job, self._id = desk, job, id
        self._stream, self._include_usage = stream, include_usage
        self._completion = Completion(id, job.model.id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._work(scope, receive, send))
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        try:
            run = self._desk.admit(self._job)
        except (BusyError, ClosingError) as error:
            await _as_seen(error).response()(scope, receive, send)
            return
        try:
            deliver = self._deliver_stream if self._stream else self._deliver_whole
            await deliver(run, scope, receive, send)
        finally:
            await run.stop()
            log.info("%s %s: %.3f s", self._id, self._job.model.id, time.monotonic() - started)

    async def _deliver_whole(self, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response: Response = JSONResponse(self._completion.whole(await run.result()))
        except Exception as error:
            response = _as_seen(error).response()
        await response(scope, receive, send)

    async def _deliver_stream(self, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
        events = await _first_events(run)
        if run.task.done():
            try:
                await run.result()
            except Exception as error:
                await _as_seen(error).response()(scope, receive, send)
                return
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        await _event(send, self._completion.chunk(role="assistant", content=""))
        story = Story(self._job.judged)
        while True:
            text = story.goes_on(events)
            if text:
                await _event(send, self._completion.chunk(reasoning_content=text))
            events = await run.news(QUIET)
            if not events:
                if run.task.done():
                    break
                await _send(send, ": searching\n\n")
        await self._end_stream(run, story, send)

    async def _end_stream(self, run: Run, story: Story, send: Send) -> None:
        completion = self._completion
        try:
            result = await run.result()
        except Exception as error:
            await _event(send, _as_seen(error).body())
        else:
            rest = story.ends(result)
            if rest:
                await _event(send, completion.chunk(reasoning_content=rest))
            await _event(send, completion.chunk(content=answer_text(result)))
            await _event(send, completion.last(result))
            if self._include_usage:
                await _event(send, completion.usage(result))
            await _send(send, "data: [DONE]\n\n")
        await _send(send, "", more=False)


async def _first_events(run: Run) -> list[Event]:
    """What happens until there is a first step, or an end, or patience is."""
    events: list[Event] = []
    until = time.monotonic() + PATIENCE
    while not run.task.done() and (left := until - time.monotonic()) > 0:
        events += await run.news(left)
        if any(event["event"] == "created" for event in events):
            break
    return events


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _event(send: Send, data: Any) -> None:
    await _send(send, f"data: {json.dumps(data, ensure_ascii=False)}\n\n")


async def _send(send: Send, text: str, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": text.encode(errors="replace"), "more_body": more})


def _as_seen(error: Exception) -> ApiError:
    """What the client is told of an error; what is the operator's business is logged."""
    match error:
        case BusyError():
            return ApiError(429, str(error), code="rate_limit_exceeded", retry_after=str(error.retry_after))
        case ClosingError():
            return ApiError(503, "the server is shutting down; try again", code="shutting_down", retry_after="5")
        case ConfigurationError(__cause__=None):  # with a cause, a model's server has refused this one
            return ApiError(400, str(error))
        case O1ReasonError():
            log.error("a search failed: %s", error)
            # The search has tried again as often as it may; a client that does so, too, pays for all of it once more.
            return ApiError(502, str(error), code=type(error).__name__, x_should_retry="false")
    log.error("a search failed", exc_info=error)
    return ApiError(500, "the search failed; the server's log says how", code="internal_error", x_should_retry="false")
