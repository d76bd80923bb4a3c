"""A real server on loopback for tests of `o1_reason.serve`, and a client of a few lines that can also hang up."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from o1_reason import Budget, Proposals, State, Step, Usage
from o1_reason.resolve import resolve_strategy
from o1_reason.serve.app import Settings, create_app
from o1_reason.serve.models import Model, build
from o1_reason.serve.server import serve

EMBEDDED = build("embedded", "embedded:prm+rules", resolve_strategy("beam"), Budget())


def model(policy: Any, verifier: Any = None, strategy: str = "cot", budget: Budget | None = None) -> Model:
    """`policy` and `verifier` under the name reasoner/test."""
    return Model("reasoner/test", policy, verifier, resolve_strategy(strategy), budget or Budget())


def body(question: Any = "4 5 6 10", model: str = "reasoner/embedded", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **fields}


class Held:
    """A policy whose calls wait until `release` is set; it then answers 42. Counts the calls under way."""

    identity = "held"

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.running = self.peak = self.asked = 0

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        self.asked += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.release.wait()
        finally:
            self.running -= 1
        return Proposals(((Step("= 42", True, "42", tokens=1),),), Usage(1, 5, 1))


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def data(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        return self.data["error"]

    @property
    def events(self) -> list[Any]:
        """The data of a stream, the last [DONE] included, comments left out."""
        found = [part[6:] for part in self.text.split("\n\n") if part.startswith("data: ")]
        return [json.loads(text) if text != "[DONE]" else text for text in found]

    def streamed(self, field: str) -> str:
        chunks = [event for event in self.events if isinstance(event, dict) and event.get("choices")]
        return "".join(chunk["choices"][0]["delta"].get(field) or "" for chunk in chunks)


class Serving:
    """Serves until the block ends: ``async with Serving(model) as server: await server.ask(body())``."""

    def __init__(
        self, *models: Model, grace: float = 0.0, ledger: Any = None, record: Any = None, **settings: Any
    ) -> None:
        self.app = create_app(models or [EMBEDDED], Settings(**settings), ledger=ledger, record=record)
        self.desk = self.app.state.desk
        self.grace = grace

    async def __aenter__(self) -> "Serving":
        config = uvicorn.Config(self.app, port=0, log_level="critical", ws="none", interface="asgi3")
        self.server = uvicorn.Server(config)
        self.serving = asyncio.ensure_future(serve(self.server, self.desk, self.grace))
        while not self.server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        await self.serving

    async def request(
        self, data: Any = None, path: str = "/v1/chat/completions", headers: Mapping[str, str] | None = None,
        method: str | None = None, chunked: bool = False,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # fmt: skip
        """Send a request; JSON where `data` is given. The connection is the caller's to close."""
        raw = data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
        given = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", **(headers or {})}
        if data is not None:
            given = {"Content-Type": "application/json", **given}
            given |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(raw))}
        method = method or ("GET" if data is None else "POST")
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write("\r\n".join(head).encode())
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(raw), raw) if chunked else raw)
        return reader, writer

    async def ask(self, data: Any = None, path: str = "/v1/chat/completions", **more: Any) -> Reply:
        """The whole reply to a request."""
        reader, writer = await self.request(data, path, **more)
        try:
            head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            rest = _joined(rest)
        return Reply(int(status.split()[1]), headers, rest.decode())

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait until `condition()`; fails after `seconds`."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    @property
    def idle(self) -> bool:
        return not self.desk.running and not self.desk.waiting


def _joined(raw: bytes) -> bytes:
    """The body of a chunked reply; fails if it was cut off."""
    found = b""
    while True:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return found
        found, raw = found + raw[:length], raw[length + 2 :]
