"""One request under way: it owns its search, and takes it along when the client goes away."""

import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ..engine import Event
from ..errors import ConfigurationError, O1ReasonError
from ..result import Result
from .desk import BusyError, ClosingError, Desk, Job, Run
from .gate import NAMED
from .story import Story
from .stream import STREAM_HEADERS, hung_up, send_text, while_there
from .wire import ApiError

log = logging.getLogger("o1_reason.serve")

PATIENCE = 1.0  # seconds a stream's status waits for the first event, so that an early error still has its own status
QUIET = 10.0  # seconds between comments in a stream where nothing happens: proxies keep it open


class Form(Protocol):
    """How an API words its replies: whole, or as the server-sent events of a stream."""

    live: str | None  # where the search can be looked at, set once it is admitted

    def whole(self, result: Result) -> dict[str, Any]: ...

    def begins(self) -> Iterable[str]: ...

    def goes_on(self, text: str) -> Iterable[str]:
        """`text` is what the reasoning grows by."""
        ...

    def ends(self, result: Result) -> Iterable[str]: ...

    def fails(self, error: ApiError) -> Iterable[str]: ...


class SearchReply(Response):
    """Admits the search, waits for its answer or streams it, and cancels it once the client has hung up."""

    def __init__(self, desk: Desk, job: Job, id: str, form: Form, stream: bool) -> None:
        super().__init__()
        self._desk, self._job, self._id = desk, job, id
        self._form, self._stream = form, stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_there(self._work(scope, receive, send), hung_up(receive))

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        try:
            run = self._desk.admit(self._job, scope["state"]["owner"])
        except (BusyError, ClosingError) as error:
            await _as_seen(error).response()(scope, receive, send)
            return
        self._form.live = None if run.name is None else f"{NAMED}{run.name}"
        try:
            deliver = self._deliver_stream if self._stream else self._deliver_whole
            await deliver(run, scope, receive, send)
        finally:
            await run.stop()
            log.info("%s %s: %.3f s", self._id, self._job.model.id, time.monotonic() - started)

    async def _deliver_whole(self, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            where = {} if self._form.live is None else {"x-reasoner-live": self._form.live}
            response: Response = JSONResponse(self._form.whole(await run.result()), headers=where)
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
        where = [] if self._form.live is None else [(b"x-reasoner-live", self._form.live.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": [*STREAM_HEADERS, *where]})
        await _send_all(send, self._form.begins())
        story = Story(self._job.judged)
        while True:
            text = story.goes_on(events)
            if text:
                await _send_all(send, self._form.goes_on(text))
            events = await run.news(QUIET)
            if not events:
                if run.task.done():
                    break
                await send_text(send, ": searching\n\n")
        await self._end_stream(run, story, send)

    async def _end_stream(self, run: Run, story: Story, send: Send) -> None:
        try:
            result = await run.result()
        except Exception as error:
            await _send_all(send, self._form.fails(_as_seen(error)))
        else:
            rest = story.ends(result)
            if rest:
                await _send_all(send, self._form.goes_on(rest))
            await _send_all(send, self._form.ends(result))
        await send_text(send, "", more=False)


async def _first_events(run: Run) -> list[Event]:
    """What happens until there is a first step, or an end, or patience is."""
    events: list[Event] = []
    until = time.monotonic() + PATIENCE
    while not run.task.done() and (left := until - time.monotonic()) > 0:
        events += await run.news(left)
        if any(event["event"] == "created" for event in events):
            break
    return events


async def _send_all(send: Send, messages: Iterable[str]) -> None:
    for message in messages:
        await send_text(send, message)


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
