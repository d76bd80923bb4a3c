"""A server on loopback for the page of one search while it runs, made of the standard library alone."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ..errors import ConfigurationError
from .feed import Feed

PATIENCE = 30.0  # seconds a client may take to read what it was sent, or to say what it wants
HEADERS = (
    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
    "Content-Security-Policy: frame-ancestors 'none'\r\nConnection: close\r\n\r\n"
)
NAMES = ("127.0.0.1", "localhost")


class Live:
    """The server. Its `url` holds a name that nobody guesses, as other users of the machine can reach it, too."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._path = f"/{secrets.token_urlsafe(16)}"
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0
        self._shown = asyncio.Event()  # somebody has got the whole search
        self.url = ""

    async def listen(self, port: int) -> asyncio.Server:
        """Raises ConfigurationError for a port that is taken; 0: one that is free."""
        try:
            server = await asyncio.start_server(self._serve, NAMES[0], port)
        except OSError as error:
            raise ConfigurationError(f"port {port} cannot be used ({error.strerror}); name another one") from error
        self.url = f"http://{NAMES[0]}:{server.sockets[0].getsockname()[1]}{self._path}"
        return server

    async def shown(self, seconds: float) -> bool:
        """Once the search has ended: wait until somebody has seen all of it, and nobody is still reading it.

        False: `seconds` were over first.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._shown.wait()
                while self._streams:  # noqa: ASYNC110 - a few milliseconds
                    await asyncio.sleep(0.02)
                return True
        return False

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            await self._answer(head, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client's loss
        except asyncio.CancelledError:
            pass  # by `close` alone; Python 3.11 takes a cancelled handler for a broken one
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = head.split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0]
        if headers.get("host", "").rpartition(":")[0] not in NAMES:  # a web page may have its own name point here
            await _send(writer, "421 Misdirected Request", "text/plain", "ask for 127.0.0.1")
        elif method != "GET" or path not in (self._path, f"{self._path}/events"):
            await _send(writer, "404 Not Found", "text/plain", "the address is the one that was printed, whole")
        elif path == self._path:
            await _send(writer, "200 OK", "text/html; charset=utf-8", self._feed.page(f"{self._path}/events"))
            if self._feed.over:
                self._shown.set()
        else:
            at = headers.get("last-event-id", "")
            await self._stream(int(at) if at.isdecimal() else 0, reader, writer)

    async def _stream(self, at: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams += 1
        told = asyncio.ensure_future(self._tell(at, writer))
        gone = asyncio.ensure_future(reader.read())  # ends once the client has hung up
        try:
            await asyncio.wait({told, gone}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                told.result()
                self._shown.set()
        finally:
            self._streams -= 1
            for task in (told, gone):
                task.cancel()
            await asyncio.gather(told, gone, return_exceptions=True)

    async def _tell(self, at: int, writer: asyncio.StreamWriter) -> None:
        await _send(writer, "200 OK", "text/event-stream", "")
        async for message in self._feed.stream(at):
            writer.write(message.encode())
            async with asyncio.timeout(PATIENCE):
                await writer.drain()


async def _send(writer: asyncio.StreamWriter, status: str, kind: str, body: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{HEADERS}{body}".encode())
    async with asyncio.timeout(PATIENCE):
        await writer.drain()


@asynccontextmanager
async def serving(feed: Feed, port: int = 0) -> AsyncIterator[Live]:
    """Serve the page of `feed` on loopback until the block ends."""
    live = Live(feed)
    server = await live.listen(port)
    try:
        yield live
    finally:
        server.close()
        await live.close()
        await server.wait_closed()
