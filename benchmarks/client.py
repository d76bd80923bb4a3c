"""CPU time of a client for one chat completion, against a server that answers at once, in a process of its own.

    python benchmarks/client.py [--quick]

All clients ask the same server the same question, 16 at once. The floor is the SDK alone, without retries, limits,
accounting or parsing of steps. its_hub is the peer with a client of its own.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from _report import Report, parse_quick

MESSAGES = [{"role": "user", "content": "What is six times seven?"}]
SERVER = """
import json, sys, uvicorn
usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
tokens = ["Answer", ":", " 4", "2"]

async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    kind = b"text/event-stream" if asked.get("stream") else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    if not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(tokens)}, "finish_reason": "stop"}
        reply = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
        await send({"type": "http.response.body", "body": reply})
        return
    for i, token in enumerate(tokens):
        choice = {"index": 0, "delta": {"content": token}, "finish_reason": "stop" if i == 3 else None}
        chunk = json.dumps({**head, "choices": [choice]}).encode()
        await send({"type": "http.response.body", "body": b"data: " + chunk + b"\\n\\n", "more_body": True})
    last = json.dumps({**head, "choices": [], "usage": usage}).encode()
    await send({"type": "http.response.body", "body": b"data: " + last + b"\\n\\ndata: [DONE]\\n\\n"})

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", lifespan="off", interface="asgi3")
"""


async def cpu_us(call: Callable[[], Awaitable[Any]], calls: int) -> float:
    """Microseconds of this process's CPU for one call, the least of three rounds."""
    gate = asyncio.Semaphore(16)

    async def one() -> None:
        async with gate:
            await call()

    rounds: list[float] = []
    for _ in range(4):  # the first warms connections up
        started = time.process_time()
        await asyncio.gather(*(one() for _ in range(calls)))
        rounds.append((time.process_time() - started) / calls * 1e6)
    return min(rounds[1:])


async def clients(url: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What is compared; packages that are not installed are left out."""
    import openai
    from o1_reason_openai import Endpoint, OpenAIChat

    from o1_reason import State
    from o1_reason.chat import Sampling
    from o1_reason.chat_policy import ChatPolicy

    sdk = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    whole, streamed = (OpenAIChat("m", Endpoint(url), prefix="none", stream=s) for s in (False, True))
    policy = ChatPolicy(OpenAIChat("m", Endpoint(url), prefix="none", stream=False))
    made: dict[str, Callable[[], Awaitable[Any]]] = {
        "openai SDK alone": lambda: sdk.chat.completions.create(model="m", messages=MESSAGES),  # type: ignore[arg-type]
        "OpenAIChat, whole replies": lambda: whole.complete(MESSAGES, Sampling(max_tokens=9)),
        "OpenAIChat, streamed": lambda: streamed.complete(MESSAGES, Sampling(max_tokens=9)),
        "ChatPolicy over it, whole replies": lambda: policy.propose(State("What is six times seven?"), 1),
    }
    try:
        from langchain_openai import ChatOpenAI
        from o1_reason_langchain import LangChainChat

        model: Any = ChatOpenAI(model="m", base_url=url, api_key="none", max_retries=0)  # type: ignore[arg-type]
        wrapped = LangChainChat(model)
        made["ChatOpenAI alone"] = lambda: model.ainvoke("What is six times seven?")
        made["LangChainChat over ChatOpenAI"] = lambda: wrapped.complete(MESSAGES)
    except ImportError:
        pass
    try:
        from its_hub import OpenAICompatibleLanguageModel
        from its_hub.api.lm import ChatMessage

        peer = OpenAICompatibleLanguageModel(endpoint=url, api_key="none", model_name="m")
        asked = [ChatMessage(role="user", content="What is six times seven?")]
        made["its_hub"] = lambda: peer.agenerate(asked)
    except ImportError:
        pass
    return made


async def main(quick: bool) -> None:
    report = Report()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(port)])  # noqa: ASYNC220
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        measured = {
            name: await cpu_us(call, 64 if quick else 512)
            for name, call in (await clients(f"http://127.0.0.1:{port}/v1")).items()
        }
    finally:
        server.terminate()
    floor = measured["openai SDK alone"]
    rows = [[name, f"{us:.0f}", f"{us / floor:.2f}"] for name, us in measured.items()]
    report.table("One chat completion, CPU of the client", ["client", "us / call", "x SDK"], rows)
    kept = measured["OpenAIChat, whole replies"] <= 1.25 * floor
    report.promise(kept, "whole replies cost at most a quarter more than the SDK alone")
    report.exit()


if __name__ == "__main__":
    asyncio.run(main(parse_quick(__doc__)))
