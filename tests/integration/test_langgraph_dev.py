"""The deployable graphs, served by ``langgraph dev`` as a user would start it: offline, without a key."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from o1_reason_embedded.puzzle import parse, solves

pytest.importorskip("langgraph_api", reason="needs langgraph-cli[inmem]")

from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

ROOT = Path(__file__).parent.parent.parent
PUZZLE = "4 5 6 10"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over a copy of the graphs, since it keeps its state where they are."""
    folder = tmp_path_factory.mktemp("deployed")
    shutil.copy(ROOT / "langgraph.json", folder)
    shutil.copytree(ROOT / "graphs", folder / "graphs")
    (folder / "pyproject.toml").write_text('[project]\nname = "deployed"\nversion = "0"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false", "O1_REASON_ASK_BELOW": "1"}
    unset = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    command = [Path(sys.executable).parent / "langgraph", "dev", "--no-browser", "--no-reload", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=unset | quiet, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        patience = time.monotonic() + 60
        while not _answers(address):
            assert server.poll() is None and time.monotonic() < patience, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/ok").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url) as client:
        yield client


async def streamed(client: LangGraphClient, graph: str, question: str) -> tuple[str, list[Any]]:
    """The thread of a run, and what came of it."""
    thread = (await client.threads.create())["thread_id"]
    stream = client.runs.stream(
        thread, graph, input=asking(question), stream_mode=["custom", "updates"], stream_subgraphs=True
    )
    parts: list[Any] = [part async for part in stream]
    assert not [part for part in parts if part.event.startswith("error")]
    return thread, parts


def asking(question: str) -> Any:
    return {"messages": [{"role": "user", "content": question}]}


async def said(client: LangGraphClient, thread: str) -> str:
    state: Any = await client.threads.get_state(thread)
    content = state["values"]["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def nodes(parts: list[Any]) -> set[str]:
    return {name for part in parts if part.event.startswith("updates") for name in part.data}


async def test_reason_streams_its_search_pauses_for_a_person_and_goes_on(client: LangGraphClient) -> None:
    thread, parts = await streamed(client, "reason", PUZZLE)
    assert {part.data["event"] for part in parts if part.event == "custom"} >= {"created", "scored"}
    assert nodes(parts) >= {"generate", "verify", "backtrack"}
    state: Any = await client.threads.get_state(thread)
    shown = state["tasks"][0]["interrupts"][0]["value"]
    assert shown["why"] == "confidence"
    second = shown["candidates"][1]
    output: Any = await client.runs.wait(thread, "reason", command={"resume": {"choose": second["node"]}})
    assert output["answer"] == second["answer"]


@pytest.mark.parametrize(("question", "thinks"), [("4 4 6 10", False), ("3 7 9 13", True)])
async def test_chat_answers_easy_turns_at_once_and_thinks_about_hard_ones(
    client: LangGraphClient, question: str, thinks: bool
) -> None:
    thread, parts = await streamed(client, "chat", question)
    assert ("reason" in nodes(parts)) == thinks
    assert any(part.event.startswith("custom") for part in parts)
    assert solves(parse(question), await said(client, thread))


async def test_chat_says_what_it_cannot_take_and_goes_on(client: LangGraphClient) -> None:
    thread, _ = await streamed(client, "chat", "hello")
    assert "arithmetic puzzles" in await said(client, thread)
    await client.runs.wait(thread, "chat", input=asking(PUZZLE))
    assert solves(parse(PUZZLE), await said(client, thread))


async def test_agent_compares_its_calls_and_uses_its_tool(client: LangGraphClient) -> None:
    thread, parts = await streamed(client, "agent", PUZZLE)
    state: Any = await client.threads.get_state(thread)
    assert [message["type"] for message in state["values"]["messages"]][:3] == ["human", "ai", "tool"]
    assert [part for part in parts if part.event == "custom"]
    assert "= 24" in await said(client, thread)


async def test_the_context_of_a_run_chooses_a_strategy_and_no_model(client: LangGraphClient) -> None:
    assistant = (await client.assistants.search(graph_id="reason"))[0]["assistant_id"]
    schema: Any = (await client.assistants.get_schemas(assistant))["context_schema"]
    assert "strategy" in schema["properties"]
    chosen: Any = {"reasoner": {"strategy": "cot"}}
    tokens = []
    for context in ({}, chosen):
        output: Any = await client.runs.wait(None, "chat", input=asking("3 7 9 13"), context=context)
        tokens.append(output["messages"][-1]["usage_metadata"]["total_tokens"])
    assert tokens[1] < tokens[0]
    with pytest.raises(Exception, match="cannot choose policy"):
        await client.runs.wait(None, "reason", input=asking(PUZZLE), context={"policy": "openai:x"}, raise_error=True)
