"""A server on loopback that plays what real ones will not play on demand: refusals, cut streams, nonsense, silence.

It speaks ASGI under uvicorn. Each request takes the next entry of `script`, or else `answer`; it counts what it was
asked and what it has sent, tokens included, and remembers who hung up.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Send = Callable[[Any], Awaitable[None]]


class Request:
    """One request under way: its body, and ways to reply to it."""

    def __init__(self, server: "Server", path: str, body: dict[str, Any], headers: dict[str, str], send: Send) -> None:
        self.server, self.path, self.body, self.headers, self._send = server, path, body, headers, send

    @property
    def prompt_tokens(self) -> int:
        shown = self.body.get("messages") or self.body.get("prompt") or ""
        return len(json.dumps(shown).split())

    async def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """A whole reply, JSON unless it is bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = [
            (name.encode(), value.encode())
            for name, value in {"content-type": "application/json", **(headers or {})}.items()
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": raw})

    async def error(self, status: int, code: str | None = None, param: str | None = None, **headers: str) -> None:
        body = {"error": {"message": f"told {status}", "code": code, "param": param, "type": "test"}}
        await self.reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    async def begin(self) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self.server.prompt_tokens += self.prompt_tokens

    async def event(self, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        await self._send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})

    async def token(self, text: str, index: int = 0, finish: str | None = None, sent: int = 1, **more: Any) -> None:
        """A chunk with one token; `sent` tokens of this reply so far."""
        self.server.completion_tokens += 1
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": sent}
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish, **more}
        await self.event({"choices": [choice], "usage": usage})

    async def end(self) -> None:
        await self.event("[DONE]")
        await self._send({"type": "http.response.body", "body": b""})

    async def stream(self, texts: list[list[str]], finish: str = "stop", **more: Any) -> None:
        """Replies, token by token, one reply after the other."""
        await self.begin()
        for index, tokens in enumerate(texts):
            for i, token in enumerate(tokens):
                last = i == len(tokens) - 1
                await self.token(token, index, finish if last else None, i + 1, **(more if last else {}))
        await self.end()


Handler = Callable[[Request], Awaitable[None]]


async def two_steps(request: Request) -> None:
    """A thought, then an answer: as many replies as were asked for."""
    turns = sum(m["role"] == "assistant" for m in request.body["messages"])
    tokens = ["Answer:", " 4", "2"] if turns else ["A", " thought"]
    await request.stream([tokens] * request.body.get("n", 1))


class Server:
    """Serves until the block ends: ``async with Server() as server: ... server.url``."""

    def __init__(self, answer: Handler = two_steps) -> None:
        self.answer = answer
        self.script: list[Handler] = []
        self.requests: list[Request] = []
        self.prompt_tokens = self.completion_tokens = 0
        self.running = self.peak = self.gone = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> "Server":
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
        self._serving = asyncio.ensure_future(self._server._serve())  # type: ignore[attr-defined]
        while not self._server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        await self._serving

    async def _app(self, scope: Any, receive: Any, send: Send) -> None:
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = Request(self, scope["path"], json.loads(raw or b"{}"), headers, send)
        self.requests.append(request)
        handler = self.script.pop(0) if self.script else self.answer
        self.running += 1
        self.peak = max(self.peak, self.running)
        work = asyncio.ensure_future(handler(request))
        hung_up = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({work, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                self.gone += 1
        finally:
            self.running -= 1
            for task in (work, hung_up):
                task.cancel()
            await asyncio.gather(work, hung_up, return_exceptions=True)
