"""An MCP server over the reasoner: tools `reason` and `show_search`, and each search's page as a resource.

Written against the low-level server of the `mcp` package, so that what is wrong with a call is told in our words, and
fields that nobody knows are refused instead of dropped. https://modelcontextprotocol.io/specification
"""

import asyncio
import os
import signal
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from . import __version__
from .errors import ConfigurationError, O1ReasonError
from .ledger import Ledger
from .mcp_tools import PAGES, TOOLS, Asked, Found, Look, Progress, advice, said, text
from .serve.desk import BusyError, ClosingError, Desk, Run
from .serve.models import Model
from .view import Picture, flowchart, of_result, render

KEPT = 16  # searches, the latest, that can be looked at
PAUSE = 0.1  # seconds between notifications of progress, at least
INSTRUCTIONS = (
    "Use the tool reason for a question that needs several steps and has a definite answer: several ways of reasoning "
    "are tried, each step is scored, and the best answer comes back with a confidence."
)


class Reasoning:
    """What the server does: it answers by searches of the desk, and keeps the latest to be looked at."""

    def __init__(self, model: Model, desk: Desk, seed: int) -> None:
        self._model, self._desk, self._seed = model, desk, seed
        self._kept: OrderedDict[str, Picture] = OrderedDict()

    async def list_tools(self, _: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=TOOLS)

    async def call_tool(self, ctx: ServerRequestContext[Any], asked: types.CallToolRequestParams) -> Any:
        tools = {"reason": self._reason, "show_search": self._show}
        if asked.name not in tools:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {asked.name!r}; there are: {', '.join(tools)}")
        try:
            return await tools[asked.name](ctx, asked.arguments or {})
        except (O1ReasonError, BusyError, ClosingError, ValidationError) as error:
            return types.CallToolResult(content=[text(advice(error))], is_error=True)

    async def _reason(self, ctx: ServerRequestContext[Any], arguments: dict[str, Any]) -> types.CallToolResult:
        run = self._desk.admit(Asked.model_validate(arguments).job(self._model, self._seed))
        leaving = asyncio.ensure_future(_cancel_if_left(ctx, run))
        started = time.monotonic()
        try:
            await _report(ctx, run)
            result = await run.result()
        finally:
            leaving.cancel()
            with anyio.CancelScope(shield=True):  # under a cancelled scope no clean-up that awaits would run
                await run.stop()
        search = uuid.uuid4().hex
        self._keep(search, of_result(result, time.monotonic() - started))
        page = types.ResourceLink(name="search", title="The search, as a page", uri=_uri(search), mime_type="text/html")
        data = Found.data(result, search)
        return types.CallToolResult(content=[text(said(result)), page], structured_content=data)

    def _keep(self, search: str, picture: Picture) -> None:
        self._kept[search] = picture
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    async def _show(self, _: Any, arguments: dict[str, Any]) -> types.CallToolResult:
        look = Look.model_validate(arguments)
        if look.search not in self._kept:
            raise ConfigurationError(f"there is no search {look.search!r} any more; the latest {KEPT} are kept")
        return types.CallToolResult(content=[text(flowchart(self._kept[look.search], look.limit))])

    async def list_resources(self, _: Any, __: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[])  # whoever asked for a search has its link, and nobody else

    async def list_templates(self, _: Any, __: Any) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=[PAGES])

    async def read_resource(self, _: Any, asked: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        picture = self._kept.get(str(asked.uri).removeprefix(_uri("")).strip("/"))
        if picture is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no {asked.uri} any more; the latest {KEPT} are kept")
        page = types.TextResourceContents(uri=asked.uri, mime_type="text/html", text=render(picture))
        return types.ReadResourceResult(contents=[page])


def create_server(model: Model, desk: Desk, seed: int = 0) -> Server[Any]:
    """The server, to be run on any transport of the `mcp` package. The desk's ledger is closed with it."""
    does = Reasoning(model, desk, seed)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {}
        finally:
            with anyio.CancelScope(shield=True):
                await desk.cancel()
                if desk.ledger is not None:
                    await desk.ledger.close()

    return Server(
        "o1-reason", version=__version__, title="o1-reason", instructions=INSTRUCTIONS, lifespan=lifespan,
        on_list_tools=does.list_tools, on_call_tool=does.call_tool, on_list_resources=does.list_resources,
        on_list_resource_templates=does.list_templates, on_read_resource=does.read_resource,
    )  # fmt: skip


# A call under way.


async def _report(ctx: ServerRequestContext[Any], run: Run) -> None:
    """Tell the client how far the search is, until it has ended."""
    progress = Progress()
    while not run.task.done():
        events = await run.news(10.0)
        if events and not run.task.done():
            progress.take(events)
            await ctx.session.report_progress(progress.done, message=str(progress))
            await asyncio.wait({run.task}, timeout=PAUSE)


async def _cancel_if_left(ctx: ServerRequestContext[Any], run: Run) -> None:
    """End the search of a client that has hung up without a word. Over stdio the whole server ends with its client."""
    left = None if ctx.request is None else ctx.request.scope.get("state", {}).get("left")
    if left is not None:
        await left.wait()
        run.task.cancel()


class Leaving:
    """ASGI middleware that lets a request's handler know that nobody waits for its reply any more."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = asyncio.Event()
        if scope["type"] == "http":
            scope.setdefault("state", {})["left"] = left
        try:
            await self._app(scope, receive, send)
        finally:
            left.set()


def _uri(search: str) -> str:
    return f"search://{search}"


# Running it.


def run(
    model: Model, *, seed: int = 0, ledger: Ledger | None = None, searches: int = 8, queue: int = 64,
    address: tuple[str, int] | None = None, keys: tuple[str, ...] = (), body_bytes: int = 1 << 20, grace: float = 30,
    log_level: str = "warning",
) -> None:  # fmt: skip
    """Serve on standard input and output until the client closes them, or by streamable HTTP on `address`.

    `searches` run at once, `queue` more wait. The rest is for HTTP, as in `serve`: there a loopback address needs no
    key, and any other one does. Raises ConfigurationError for what cannot work.
    """
    desk = Desk(searches, queue, ledger)
    server = create_server(model, desk, seed)
    if address is None:
        asyncio.run(_stdio(server))
        return
    import uvicorn

    from .serve.server import guarded, serve, uvicorn_config

    app = http_app(server, desk, guarded(address[0], keys=keys, searches=searches, queue=queue, body_bytes=body_bytes))
    config = uvicorn_config(app, *address, grace=grace, log_level=log_level)
    asyncio.run(serve(uvicorn.Server(config), desk, grace))


def http_app(server: Server[Any], desk: Desk, settings: Any) -> ASGIApp:
    """The ASGI application for streamable HTTP, at /mcp, behind the gate of `serve`."""
    from mcp.server.transport_security import TransportSecuritySettings

    from .serve.gate import Gate

    # Without keys a web page could have its own name point here, or post from another origin; it has no key to send.
    names = ("127.0.0.1", "localhost", "[::1]")
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=not settings.keys,
        allowed_hosts=[f"{name}:*" for name in names],
        allowed_origins=[f"http://{name}:*" for name in names],
    )
    app = server.streamable_http_app(transport_security=security, max_request_body_size=settings.body_bytes)
    app.add_middleware(Leaving)
    app.add_middleware(Gate, settings=settings, metrics=desk.metrics)
    return app


async def _stdio(server: Server[Any]) -> None:
    from mcp.server.stdio import stdio_server

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt(attempts: int = 3) -> None:
        """Cancel until it is heard: what is being written to the client just then may swallow a cancellation."""
        if not attempts:
            os._exit(130)
        task.cancel()
        loop.call_later(2, interrupt, attempts - 1)

    with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        loop.add_signal_handler(signal.SIGINT, interrupt)
    async with stdio_server() as (read, write):
        try:
            await server.run(read, write, server.create_initialization_options())
        except asyncio.CancelledError:
            # Interrupted, and all is closed; but a thread still reads standard input, and would until a line comes.
            os._exit(130)
