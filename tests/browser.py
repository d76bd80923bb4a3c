"""A page in a headless Chromium, driven over the DevTools protocol."""

import asyncio
import json
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.asyncio.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--disable-features=IsolateSandboxedIframes", "--remote-debugging-port=0", "--window-size=1440,860",
)  # fmt: skip


class Page:
    """One tab. `heard` holds what it reported on its own: exceptions, dialogs, refusals of its policy, requests."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []
        self._count = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            data = json.loads(message)
            if "id" in data:
                self._answers.pop(data["id"]).set_result(data)
                continue
            self.heard.append(data)
            if data["method"] == "Page.javascriptDialogOpening":  # else the page would wait for ever
                await self._send("Page.handleJavaScriptDialog", {"accept": False})

    async def _send(self, method: str, params: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        return answer

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        data = await asyncio.wait_for(await self._send(method, params), 60)
        assert "error" not in data, data
        return data["result"]

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, script: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true."""
        async with asyncio.timeout(seconds):
            while not await self.run(script):  # noqa: ASYNC110 - the page is elsewhere
                await asyncio.sleep(0.02)

    async def open(self, where: Path | str) -> None:
        self.heard.clear()
        await self.call("Page.navigate", url=where if isinstance(where, str) else where.as_uri())
        await self.until("document.readyState === 'complete'")

    async def click(self, x: float, y: float, times: int = 1) -> None:
        for n in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=n)

    async def key(self, key: str, code: str | None = None) -> None:
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code or key, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code or key)

    async def picture(self) -> bytes:
        return b64decode((await self.call("Page.captureScreenshot"))["data"])

    def said(self, *methods: str) -> list[dict[str, Any]]:
        return [event for event in self.heard if event["method"] in methods]


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A tab of a browser of its own, with its profile in `folder`; gone with the block."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        port = await _port(folder / "DevToolsActivePort")
        tabs = json.loads(await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/json/list").read()))
        url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        async with connect(url, max_size=None, proxy=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.call(f"{domain}.enable")
            yield page
            page._reader.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _port(file: Path) -> int:
    """The browser writes it down once it listens."""
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError, IndexError):
                return int(file.read_text().split()[0])  # noqa: ASYNC240 - one line
            await asyncio.sleep(0.05)
