"""The MCP server against the official client, over stdio and over HTTP on loopback."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from serving import EMBEDDED, Held, model
from typer.testing import CliRunner

from o1_reason import Budget, Proposals, Step, Usage, search
from o1_reason.cli import app as command
from o1_reason.mcp_server import KEPT, create_server, http_app
from o1_reason.mcp_tools import Progress
from o1_reason.serve.desk import Desk
from o1_reason.serve.gate import Settings
from o1_reason.serve.server import serve
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

SCRIPT = {(): ["think", "= 7"], ("think",): ["= 42"]}
SCRIPTED = model(ScriptedPolicy(SCRIPT, repeat=True), ScriptedVerifier({"= 42": 0.9, "= 7": 0.1, "think": 0.5}), "beam")
PROCESS = Path(__file__).with_name("mcp_process.py")


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Told:
    """Collects progress."""

    def __init__(self):
        self.told = []

    async def __call__(self, progress, total, message):
        self.told.append((progress, message))


class Serving:
    """A server over HTTP until the block ends."""

    def __init__(self, model, keys=(), **limits):
        self.desk = Desk(**{"places": 4, "queue": 4, **limits})
        app = http_app(create_server(model, self.desk), self.desk, Settings(keys=keys))
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))

    async def __aenter__(self):
        self.serving = asyncio.ensure_future(serve(self.server, self.desk, 0.0))
        await until(lambda: self.server.started)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/mcp"
        return self

    async def __aexit__(self, *_):
        self.server.should_exit = True
        await self.serving

    @property
    def idle(self):
        return not self.desk.running and not self.desk.waiting


@asynccontextmanager
async def in_process(model, **limits):
    desk = Desk(**{"places": 4, "queue": 4, **limits})
    async with Client(create_server(model, desk)) as client:
        client.desk = desk
        yield client


def said(result):
    return result.content[0].text


# Over stdio, in a process of its own.


async def test_the_command_speaks_the_protocol_on_stdio_and_answers():
    same = await search("4 5 6 10", "embedded", "embedded:prm+rules", "beam")
    process = StdioServerParameters(command=sys.executable, args=["-m", "o1_reason.cli", "mcp"])
    told = Told()
    async with Client(process) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        found = await client.call_tool("reason", {"question": "4 5 6 10"}, progress_callback=told)
        love = await client.call_tool("reason", {"question": "What is love?"})
    assert tools.keys() == {"reason", "show_search"}
    assert tools["reason"].input_schema["required"] == ["question"]
    data = found.structured_content
    assert not found.is_error
    assert (data["answer"], data["confidence"], data["stop"]) == (same.answer, same.confidence, "done")
    assert (data["reasoning"], data["steps"]) == (same.text, len(same.tree) - 1)
    assert data["usage"] == same.usage.to_data()
    assert [tuple(each.values()) for each in data["ranking"]] == list(same.ranking)
    assert said(found) == f"{same.answer} (confidence {same.confidence:.2f})\n\n{same.text}"
    assert told.told
    assert love.is_error
    assert "arithmetic puzzles only" in said(love)
    assert said(love).endswith("Ask in another way, or go on without this tool.")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_over_stdio_progress_comes_while_it_searches_and_a_cancelled_call_leaves_no_model_call(mode, tmp_path):
    file = tmp_path / "running"
    told = Told()
    process = StdioServerParameters(command=sys.executable, args=[str(PROCESS), str(file)])
    async with Client(process, mode=mode) as client:
        call = asyncio.ensure_future(client.call_tool("reason", {"question": "wait"}, progress_callback=told))
        await until(lambda: told.told)
        await until(lambda: file.exists() and file.read_text() == "1")
        other = await client.call_tool("reason", {"question": "6 * 7"})
        assert other.structured_content["answer"] == "42"
        assert file.read_text() == "1"
        call.cancel()
        await until(lambda: file.read_text() == "0", 1)
    assert told.told[0] == (1, "1 steps, 0 scored")


@pytest.mark.parametrize("end", ["pipe", "interrupt"])
def test_a_client_that_closes_the_pipe_or_interrupts_ends_the_server_at_once_with_its_searches(end, tmp_path):
    file = tmp_path / "running"
    start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    lines = [
        {"id": 1, "method": "initialize", "params": start},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "reason", "arguments": {"question": "wait"}}},
    ]
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in lines:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **line}) + "\n")
            process.stdin.flush()
        first = json.loads(process.stdout.readline())
        assert (first["id"], first["result"]["serverInfo"]["name"]) == (1, "o1-reason")
        while not (file.exists() and file.read_text() == "1"):
            time.sleep(0.01)
        if end == "pipe":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == (0 if end == "pipe" else 130)
        rest = [json.loads(line) for line in process.stdout]
    assert file.read_text() == "0"
    assert all(message.get("jsonrpc") == "2.0" for message in rest), "nothing but the protocol"


# Over HTTP.


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_over_http_two_calls_run_at_once_and_each_gets_its_answer(mode):
    held = Held()
    async with Serving(model(held)) as server, Client(server.url, mode=mode) as client:
        calls = [asyncio.ensure_future(client.call_tool("reason", {"question": f"q{i}"})) for i in range(2)]
        await until(lambda: held.running == 2)
        held.release.set()
        found = await asyncio.gather(*calls)
        assert [each.structured_content["answer"] for each in found] == ["42", "42"]
        assert len({each.structured_content["search"] for each in found}) == 2


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_over_http_a_cancelled_call_leaves_no_search(mode):
    held = Held()
    async with Serving(model(held)) as server, Client(server.url, mode=mode) as client:
        call = asyncio.ensure_future(client.call_tool("reason", {"question": "q"}))
        await until(lambda: held.running)
        call.cancel()
        await until(lambda: server.idle and not held.running, 1)
        held.release.set()
        assert (await client.call_tool("reason", {"question": "q"})).structured_content["answer"] == "42"


async def test_over_http_a_client_that_vanishes_takes_its_search_along():
    held = Held()
    async with Serving(model(held)) as server:
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        async with httpx2.AsyncClient(headers=headers) as http:
            start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
            opened = await http.post(
                server.url, json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start}
            )
            http.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
            await http.post(server.url, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
            call = {"name": "reason", "arguments": {"question": "q"}}
            body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
            asking = asyncio.ensure_future(http.post(server.url, json=body, timeout=60))
            await until(lambda: held.running)
            asking.cancel()
            await until(lambda: server.idle and not held.running, 1)


async def test_over_http_a_key_is_asked_for_where_there_is_one():
    async with Serving(SCRIPTED, keys=("right",)) as server:
        async with httpx2.AsyncClient(headers={"Authorization": "Bearer wrong"}) as http:
            refused = await http.post(server.url, json={})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        async with (
            httpx2.AsyncClient(headers={"Authorization": "Bearer right"}) as http,
            Client(streamable_http_client(server.url, http_client=http)) as client,
        ):
            assert (await client.call_tool("reason", {"question": "q"})).structured_content["answer"] == "42"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 403), ({"Origin": "http://evil.example"}, 403), ({"Content-Type": "text/plain"}, 415)],
)
async def test_over_http_no_web_page_can_use_it_behind_its_users_back(headers, status):
    async with Serving(SCRIPTED) as server, httpx2.AsyncClient() as http:
        assert (
            await http.post(server.url, content=b"{}", headers={"Content-Type": "application/json", **headers})
        ).status_code == status


# What a call says, and what comes back.


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "question: Field required"),
        ({"question": " "}, "the question is empty; state it in full"),
        ({"question": 7}, "question: Input should be a valid string"),
        ({"question": "q", "budget": 3}, "there is no argument budget; leave it out"),
        ({"question": "q", "strategy": "dream"}, "unknown strategy 'dream'"),
        ({"question": "q", "effort": "immense"}, "reasoning_effort must be one of"),
        ({"question": "q", "max_seconds": -1}, "max_seconds: Input should be greater than or equal to 0"),
    ],
)
async def test_a_call_that_cannot_be_taken_is_an_error_that_says_what_to_do(arguments, why):
    async with in_process(SCRIPTED) as client:
        result = await client.call_tool("reason", arguments)
        assert result.is_error
        assert why in said(result)
        assert client.desk.metrics.total("o1_reason_searches_total") == 0


async def test_an_unknown_tool_is_an_error_of_the_protocol():
    async with in_process(SCRIPTED) as client:
        with pytest.raises(MCPError, match="there is no tool 'dream'; there are: reason, show_search"):
            await client.call_tool("dream", {})


async def test_limits_of_a_call_narrow_those_of_the_server_and_never_widen_them():
    seen = []

    class Seen(Desk):
        def admit(self, job):
            seen.append(job)
            return super().admit(job)

    narrow = model(SCRIPTED.policy, SCRIPTED.verifier, "beam", Budget(max_tokens=1000, max_seconds=10))
    async with Client(create_server(narrow, Seen(1, 1), seed=5)) as client:
        wishes = {
            "max_tokens": 100,
            "max_seconds": 99,
            "max_usd": 1,
            "strategy": "mcts",
            "effort": "low",
            "context": "c",
        }
        await client.call_tool("reason", {"question": "q", **wishes})
    (job,) = seen
    assert (job.budget.max_tokens, job.budget.max_seconds, job.budget.max_usd) == (100, 10, 1)
    assert (type(job.strategy).__name__, job.strategy.simulations, job.seed) == ("MCTS", 32, 5)
    assert job.context == ({"role": "user", "content": "c"},)


async def test_no_answer_is_said_and_is_no_error():
    async with in_process(SCRIPTED) as client:
        none = await client.call_tool("reason", {"question": "q", "max_calls": 0})
    assert not none.is_error
    assert said(none).startswith("No answer was found (budget).")
    assert (none.structured_content["answer"], none.structured_content["stop"]) == (None, "budget")


async def test_an_answer_that_the_verifier_rules_out_is_not_given_as_one():
    ruled_out = model(ScriptedPolicy({(): ["= 7"]}, repeat=True), ScriptedVerifier({}, 0.0))
    async with in_process(ruled_out) as client:
        assert said(await client.call_tool("reason", {"question": "q"})).startswith("No answer passed the check")


class Broken:
    async def propose(self, state, n, max_steps=1, *, temperature=None):
        raise OSError("network down")


async def test_models_that_fail_and_a_full_server_are_told_as_errors():
    async with in_process(model(Broken())) as client:
        failed = await client.call_tool("reason", {"question": "q"})
    assert failed.is_error
    assert "network down" in said(failed)
    held = Held()
    async with in_process(model(held), places=1, queue=0) as client:
        first = asyncio.ensure_future(client.call_tool("reason", {"question": "q"}))
        await until(lambda: held.running)
        full = await client.call_tool("reason", {"question": "q"})
        held.release.set()
        await first
    assert full.is_error
    assert "all places are taken; try again in" in said(full)


async def test_progress_is_told_a_few_times_a_second_whatever_the_pace():
    class Fast:
        async def propose(self, state, n, max_steps=1, *, temperature=None):
            await asyncio.sleep(0.002)
            done = len(state.steps) == 60
            return Proposals(((Step(f"step {len(state.steps)}", done, "7" if done else None),),), Usage(1, 1, 1))

    told = Told()
    async with in_process(model(Fast())) as client:
        await client.call_tool("reason", {"question": "q"}, progress_callback=told)
    counts = [progress for progress, _ in told.told]
    assert counts == sorted(set(counts)), "each is more than the one before"
    assert 0 < len(counts) < 30


def test_progress_names_the_best_answer_so_far():
    progress = Progress()
    progress.take(
        [
            {"event": "created", "node": 1, "terminal": True, "answer": "7", "text": "= 7"},
            {"event": "created", "node": 2, "terminal": True, "answer": None, "text": "a poem"},
            {"event": "scored", "node": 1, "reward": 0.2},
            {"event": "scored", "node": 2, "reward": 0.8},
            {"event": "failed", "node": 3, "error": "down"},
        ]
    )
    assert (str(progress), progress.done) == ("2 steps, 2 scored, 1 failed, best 0.80: a poem", 5)


async def test_a_search_can_be_looked_at_as_chart_and_as_page_by_whoever_has_its_name():
    async with in_process(SCRIPTED) as client:
        found = await client.call_tool("reason", {"question": "<b>q</b>"})
        link = found.content[1]
        page = (await client.read_resource(link.uri)).contents[0]
        chart = await client.call_tool("show_search", {"search": found.structured_content["search"]})
        assert (await client.list_resources()).resources == []
        assert [each.uri_template for each in (await client.list_resource_templates()).resource_templates] == [
            "search://{search}"
        ]
    assert (link.type, page.mime_type) == ("resource_link", "text/html")
    assert page.text.startswith("<!doctype html>")
    assert "<b>q" not in page.text
    assert said(chart).startswith("flowchart LR")
    assert "= 42" in said(chart)


async def test_only_the_latest_searches_are_kept():
    async with in_process(SCRIPTED) as client:
        names = [
            (await client.call_tool("reason", {"question": "q"})).structured_content["search"] for _ in range(KEPT + 1)
        ]
        gone = await client.call_tool("show_search", {"search": names[0]})
        assert not (await client.call_tool("show_search", {"search": names[1]})).is_error
        with pytest.raises(MCPError, match="any more"):
            await client.read_resource(f"search://{names[0]}")
    assert gone.is_error
    assert "any more" in said(gone)


async def test_texts_that_are_no_utf8_still_come_through():
    odd = model(ScriptedPolicy({(): ["= \ud800"]}, repeat=True))
    async with Serving(odd) as server, Client(server.url) as client:
        assert not (await client.call_tool("reason", {"question": "q"})).is_error


async def test_the_embedded_reasoner_is_served_over_http_too():
    async with Serving(EMBEDDED) as server, Client(server.url) as client:
        assert (await client.call_tool("reason", {"question": "4 5 6 10"})).structured_content["stop"] == "done"


# The command.


def refused(*arguments):
    result = CliRunner().invoke(command, ["mcp", *arguments])
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--http", "--host", "0.0.0.0"], "API keys are needed"),
        (["--http", "--api-key", " "], "an API key is empty"),
        (["--policy", "nowhere"], "no adapter 'nowhere'"),
        (["--strategy", "dream"], "unknown strategy"),
        (["-o", "n=3"], "'n=3' is no setting of BeamSearch"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_served(arguments, why):
    assert why in refused(*arguments)


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "o1_reason.mcp_server", raising=False)
    monkeypatch.delitem(sys.modules, "o1_reason.mcp_tools", raising=False)
    monkeypatch.delattr("o1_reason.mcp_server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    assert "pip install 'o1-reason[mcp]'" in refused()
