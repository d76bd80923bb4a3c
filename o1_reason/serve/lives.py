"""Searches to look at in a browser: a list of them, and the page of each, which grows while the search runs."""

import asyncio
import time
from html import escape

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ..view import Feed
from ..view.page import hashed
from .desk import Desk, Shown
from .gate import NAMED
from .stream import STREAM_HEADERS, hung_up, send_text, while_there
from .wire import ApiError

PATIENCE = 30.0  # seconds a client may take to read what it was sent
SAFE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the page's address is all that is needed to see it
    "X-Content-Type-Options": "nosniff",
}
STYLE = """:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td { overflow-wrap: anywhere } td + td { white-space: nowrap }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8884; vertical-align: top }"""


def add_live_routes(app: FastAPI, desk: Desk) -> None:
    """``GET /live``, ``/live/NAME``, ``/live/NAME/events``."""

    def known(name: str) -> Feed:
        if name not in desk.shown:
            raise ApiError(404, "this search cannot be looked at any more; only the latest are kept", code="not_live")
        return desk.shown[name].feed

    @app.get("/live")
    async def listed(request: Request) -> Response:
        mine = [(n, s) for n, s in reversed(desk.shown.items()) if s.owner == request.scope["state"]["owner"]]
        if "text/html" in request.headers.get("accept", ""):
            return _page(_table(mine), f"default-src 'none'; style-src '{hashed(STYLE)}'")
        return JSONResponse({"object": "list", "data": [_entry(name, shown) for name, shown in mine]}, headers=SAFE)

    @app.get("/live/{name}")
    async def page(name: str) -> Response:
        return _page(known(name).page(f"{path(name)}/events"), "frame-ancestors 'none'")

    @app.get("/live/{name}/events")
    async def events(name: str, request: Request) -> Response:
        at = request.headers.get("last-event-id", "")
        return Events(known(name), int(at) if at.isdecimal() else 0)


def path(name: str) -> str:
    """Where a search can be looked at."""
    return f"{NAMED}{name}"


class Events(Response):
    """What happens in a search, until it has ended, the client is gone, or reads too slowly."""

    def __init__(self, feed: Feed, at: int) -> None:
        super().__init__()
        self._feed, self._at = feed, at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_there(self._tell(send), hung_up(receive))

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        try:
            async for message in self._feed.stream(self._at):
                async with asyncio.timeout(PATIENCE):
                    await send_text(send, message)
        except TimeoutError:
            return  # the connection is closed, and the browser may come again
        await send_text(send, "", more=False)


def _page(html: str, policy: str) -> Response:
    return HTMLResponse(html, headers={**SAFE, "Content-Security-Policy": policy})


def _entry(name: str, shown: Shown) -> dict[str, object]:
    feed = shown.feed
    return {
        "url": path(name), "question": feed.question, "model": shown.model, "state": feed.state, "steps": feed.steps,
        "created": int(shown.began),
    }  # fmt: skip


def _table(shown: list[tuple[str, Shown]]) -> str:
    rows = "".join(_row(name, each) for name, each in shown) or "<tr><td>No search yet. Ask something, and look again."
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="3">'
        f"<title>Searches</title><style>{STYLE}</style><h1>Searches</h1>"
        f"<table><tr><th>Question<th>Model<th>State<th>Steps<th>Began{rows}</table></html>"
    )


def _row(name: str, shown: Shown) -> str:
    feed = shown.feed
    question = feed.question if len(feed.question) <= 200 else feed.question[:199] + "…"
    ago = f"{max(0, round(time.time() - shown.began))} s ago"
    state = feed.state.partition(":")[0]  # its page tells why
    cells = "".join(f"<td>{escape(text)}" for text in (shown.model, state, str(feed.steps), ago))
    shown_as = escape(question).encode(errors="replace").decode()
    return f'<tr><td><a href="{path(name)}" target="_blank">{shown_as}</a>{cells}'
