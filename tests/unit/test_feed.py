"""What a page hears of a search that runs: the feed, the server of `solve --live`, and /live of `serve`."""

import asyncio
import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from serving import Held, Serving, body, model
from typer.testing import CliRunner

from o1_reason import MCTS, Proposals, Step, Usage, search
from o1_reason.cli import app
from o1_reason.errors import ConfigurationError
from o1_reason.mdp import ToolCall
from o1_reason.serve.story import Story
from o1_reason.testing import RandomWorld, ScriptedPolicy, ScriptedVerifier
from o1_reason.view import Feed, feed, live
from o1_reason.view.live import serving

EVIL = "<script>alert(1)</script>\n\ndata: x\r\n\u2028\ud800"
SCRIPT = {(): ["think", "= 7"], ("think",): ["= 42"]}


def scripted():
    return model(ScriptedPolicy(SCRIPT, repeat=True), ScriptedVerifier({"= 42": 0.9, "= 7": 0.1, "think": 0.5}), "beam")


def created(node, parent=0, text="step", terminal=False, answer=None):
    return {
        "event": "created", "node": node, "parent": parent, "depth": 1, "text": text, "terminal": terminal,
        "answer": answer,
    }  # fmt: skip


async def heard(stream):
    """All messages of a stream, as (name, data)."""
    return [parsed(message) async for message in stream]


def parsed(message):
    fields = dict(line.split(": ", 1) for line in message.strip().split("\n"))
    return fields.get("event"), json.loads(fields["data"])


def embedded_data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


async def found(question="q", **more):
    world = RandomWorld(3, branch=3, depth=4)
    made = Feed(question)
    result = await search(question, world, world, MCTS(simulations=16), on_event=made.take, **more)
    return made, result


class Clerk:
    """A policy whose first step waits for a tool; behind what the tool says, it answers."""

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        step = Step("= 7", True, "7") if state.steps else Step("ask()", True, "ask()", key="ask", calls=(ASK,))
        return Proposals(((step,),), Usage(1, 5, 3))

    async def act(self, state, refusal):
        return replace(state.steps[-1], text="ask() -> 7", calls=(replace(ASK, result="7"),))


ASK = ToolCall("ask", "{}", "1")


async def test_a_search_that_goes_on_behind_a_tool_begins_a_new_tree_there():
    made = Feed("q")
    result = await search("q", Clerk(), None, "cot", on_event=made.take)
    messages = [json.loads(text) for text in made._log]
    assert [m["event"] for m in messages] == ["created", "restarted", "created"]
    assert messages[1]["question"] == "q\nask() -> 7"
    made.end(result, 1.0)
    assert embedded_data(made.page())["question"] == "q\nask() -> 7"
    assert embedded_data(made.page())["columns"]["text"] == ["", "= 7"]
    story, told = Story(False), []

    def tell(event):
        told.append(story.goes_on([event]))

    await search("q", Clerk(), None, "cot", on_event=tell)
    assert "".join(told) == "ask()\n= 7\n"


async def test_who_comes_late_hears_everything_from_the_start_and_then_the_whole_search():
    made, result = await found()
    early = asyncio.ensure_future(heard(made.stream()))
    await asyncio.sleep(0.01)
    made.end(result, 1.5)
    *batches, end = await early
    told = [event for name, events in batches for event in events if name == "grow"]
    assert sum(event["event"] == "created" for event in told) == len(result.tree) - 1
    assert {event["event"] for event in told} <= {"created", "scored", "failed"}
    assert end[0] == "end"
    assert (end[1]["chosen"], end[1]["seconds"], end[1]["answer"]) == (result.node, 1.5, result.answer)
    assert len(end[1]["columns"]["parent"]) == len(result.tree)
    assert await heard(made.stream()) == [end], "after the end, only that"
    assert embedded_data(made.page("/e")) == end[1], "the page then has it all, and needs no stream"


async def test_a_stream_goes_on_where_it_was_cut_and_a_batch_is_bounded(monkeypatch):
    monkeypatch.setattr(feed, "BATCH", 3)
    made = Feed("q")
    for node in range(1, 8):
        made.take(created(node))
    stream = made.stream()
    first = await anext(stream)
    assert (first.split("\n")[0], len(parsed(first)[1])) == ("id: 3", 3)
    made.fail("gone")
    await stream.aclose()
    *rest, end = await heard(made.stream(3))
    assert [len(events) for _, events in rest] == [3, 1]
    assert end == ("failed", "gone")
    assert await heard(made.stream(10**9)) == [("failed", "gone")]


async def test_a_quiet_stream_is_kept_open_by_comments(monkeypatch):
    monkeypatch.setattr(feed, "QUIET", 0.01)
    assert await anext(Feed("q").stream()) == ": searching\n\n"


async def test_events_that_come_together_are_told_together():
    made = Feed("q")
    stream = made.stream()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    for node in range(1, 6):
        made.take(created(node))
    assert len(parsed(await waiting)[1]) == 5
    await stream.aclose()
    assert not made._waiting


async def test_scores_and_dead_ends_are_kept_with_the_time_at_which_they_came():
    made = Feed("q")
    policy = ScriptedPolicy(SCRIPT)
    result = await search("q", policy, ScriptedVerifier({"= 42": 0.9, "= 7": 0.1, "think": 0.5}), on_event=made.take)
    made.end(result, 0.1)
    columns = made.picture().columns
    assert columns["text"] == ["", "think", "= 7", "= 42"]
    assert columns["scored"] == [None, 3, 3, 4], "after two steps and the question, and after three"
    assert columns["died"] == [None] * 4


async def test_no_text_of_a_step_ends_a_message_or_begins_a_tag():
    made = Feed(EVIL)
    made.take(created(1, text=EVIL, terminal=True, answer=EVIL))
    made.take({"event": "failed", "node": 1, "error": EVIL})
    message = await anext(made.stream())
    assert message.isascii()
    assert message.count("\n") == 4
    assert [event.get("text", event.get("error")) for event in parsed(message)[1]] == [EVIL, EVIL]
    page = made.page("/x/events")
    assert EVIL[:20] not in page
    data = embedded_data(page)
    assert (data["question"], data["live"], data["columns"]["parent"]) == (EVIL, "/x/events", [None])


def test_only_the_page_of_a_search_that_runs_may_connect_and_only_to_its_server():
    made = Feed("q")
    assert "base-uri 'none'; connect-src 'self'; form-action 'none'" in made.page("/e")
    world = ScriptedPolicy({(): ["= 1"]})
    made.end(asyncio.run(search("q", world)), 0)
    assert "connect-src" not in made.page("/e")
    assert "live" not in embedded_data(made.page("/e"))


# The server of `solve --live`.


async def ask(url, path="", host=None, method="GET", extra=""):
    at, _, name = url.removeprefix("http://").partition("/")
    reader, writer = await asyncio.open_connection(*at.split(":"))
    writer.write(f"{method} /{name}{path} HTTP/1.1\r\nHost: {host or at}\r\n{extra}\r\n".encode())
    return reader, writer


async def reply(*arguments, **more):
    reader, writer = await ask(*arguments, **more)
    head, _, rest = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head, rest


async def test_the_page_and_its_events_are_served_under_a_name_that_nobody_guesses():
    made, result = await found()
    async with serving(made) as server:
        other = server.url.rpartition("/")[0]
        head, page = await reply(server.url)
        assert head.startswith("HTTP/1.1 200 OK")
        for safe in ("no-store", "nosniff", "no-referrer", "frame-ancestors 'none'"):
            assert safe in head
        assert embedded_data(page)["live"] == "/" + server.url.rpartition("/")[2] + "/events"
        assert (await reply(other + "/guess"))[0].startswith("HTTP/1.1 404")
        assert (await reply(server.url, method="POST"))[0].startswith("HTTP/1.1 404")
        assert (await reply(server.url, host="evil.example:80"))[0].startswith("HTTP/1.1 421")
        reader, writer = await ask(server.url, "/events")
        await reader.readuntil(b"event: grow")
        made.end(result, 1)
        assert b"event: end" in await reader.read()
        writer.close()
        assert await server.shown(5)
        assert (await reply(server.url, "/events", extra="Last-Event-ID: 3\r\n"))[1].startswith("event: end")


async def test_a_name_differs_each_time_and_a_port_that_is_taken_is_told():
    async with serving(Feed("q")) as one, serving(Feed("q")) as two:
        assert len(one.url.rpartition("/")[2]) > 20
        assert one.url.rpartition("/")[2] != two.url.rpartition("/")[2]
        port = int(one.url.split(":")[2].split("/")[0])
        with pytest.raises(ConfigurationError, match=f"port {port} cannot be used"):
            async with serving(Feed("q"), port):
                pass


async def test_a_client_that_does_not_read_is_dropped_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(live, "PATIENCE", 1.0)
    made = Feed("q")
    async with serving(made) as server:
        _, writer = await ask(server.url, "/events")
        reader, other = await ask(server.url, "/events")
        await reader.readuntil(b"\r\n\r\n")
        for node in range(1, 201):
            made.take(created(node, text="x" * 100_000))
        made.fail("over")
        async with asyncio.timeout(20):
            assert b"event: failed" in await reader.read()
            while server._tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()
        other.close()


async def test_a_client_that_hangs_up_leaves_nothing_behind():
    made = Feed("q")
    async with serving(made) as server:
        reader, writer = await ask(server.url, "/events")
        await reader.readuntil(b"\r\n\r\n")
        assert server._tasks
        writer.close()
        async with asyncio.timeout(5):
            while server._tasks or made._waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not await server.shown(0.01), "nobody has seen the end"


async def test_nonsense_is_no_request():
    async with serving(Feed("q")) as server:
        at = server.url.removeprefix("http://").partition("/")[0].split(":")
        for nonsense in (b"\r\n\r\n", b"GET\r\n\r\n", b"x" * 100_000, b"GET / HTTP/1.1\r\nHost: [::\r\n\r\n"):
            reader, writer = await asyncio.open_connection(*at)
            writer.write(nonsense)
            writer.write_eof()
            assert (await reader.read())[:13] in (b"", b"HTTP/1.1 421 ")
            writer.close()


# The command.


@pytest.fixture
def fake(installed):
    def install(policy, verifier=None):
        installed(fake=SimpleNamespace(policy=lambda _: policy, verifier=lambda _: verifier))

    return install


def test_solve_live_prints_the_address_answers_and_does_not_wait_for_ever(fake, monkeypatch):
    monkeypatch.setattr("o1_reason.cli.LINGER", 0.05)
    fake(ScriptedPolicy(SCRIPT))
    result = CliRunner().invoke(app, ["solve", "q", "-p", "fake", "--live", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["answer"] == "7"
    assert re.search(r"live: http://127\.0\.0\.1:\d+/\S{20,}\n", result.stderr)
    assert "the page stays" in result.stderr


async def test_solve_live_ends_as_soon_as_a_browser_has_the_whole_search(tmp_path):
    command = ["solve", "4 5 6 10", "--strategy", "mcts", "--live", "--view", str(tmp_path / "tree.html")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "o1_reason.cli", *command, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    url = line.removeprefix("live: ").strip()
    head, stream = await reply(url, "/events")
    out, _ = await asyncio.wait_for(process.communicate(), 5)
    assert "text/event-stream" in head
    name, data = parsed(stream.strip().split("\n\n")[-1])
    assert (name, data["stop"], process.returncode) == ("end", "done", 0)
    assert data["answer"] in out.decode()
    assert embedded_data((tmp_path / "tree.html").read_text())["columns"] == data["columns"]


def test_a_search_that_fails_is_told_on_the_page_and_by_the_exit_code(fake):
    fake(ScriptedPolicy({(): OSError("network down")}))
    result = CliRunner().invoke(app, ["solve", "q", "-p", "fake", "--live"])
    assert (result.exit_code, "network down" in result.stderr) == (1, True)


# serve.


class Slow:
    """A policy whose first step comes at once, and its answer once `release` is set."""

    def __init__(self):
        self.release = asyncio.Event()

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        if not state.steps:
            return Proposals(((Step("a first step", tokens=3),),), Usage(1, 5, 3))
        await self.release.wait()
        return Proposals(((Step("= 42", True, "42", tokens=1),),), Usage(1, 5, 1))


async def test_a_search_that_runs_is_listed_shown_and_told_of_until_its_end():
    policy = Slow()
    async with Serving(model(policy)) as server:
        asking = asyncio.ensure_future(server.ask(body("<b>q</b>", model="reasoner/test")))
        await server.until(lambda: server.desk.shown and next(iter(server.desk.shown.values())).feed.steps)
        (entry,) = (await server.ask(path="/live")).data["data"]
        assert (entry["question"], entry["state"], entry["steps"]) == ("<b>q</b>", "running", 1)
        page = await server.ask(path=entry["url"])
        assert embedded_data(page.text)["live"] == entry["url"] + "/events"
        assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
        reader, writer = await server.request(path=entry["url"] + "/events")
        await reader.readuntil(b"a first step")
        policy.release.set()
        assert b"event: end" in await reader.read()
        writer.close()
        done = (await asking).data
        assert done["reasoner"]["live"] == entry["url"]
        assert "live" not in embedded_data((await server.ask(path=entry["url"])).text)
        (entry,) = (await server.ask(path="/live")).data["data"]
        assert entry["state"] == "answered"
        listed = await server.ask(path="/live", headers={"Accept": "text/html"})
        assert f'<a href="{entry["url"]}" target="_blank">&lt;b&gt;q&lt;/b&gt;</a>' in listed.text
        assert "<b>" not in listed.text


async def test_with_keys_the_list_is_that_of_the_own_key_and_a_page_needs_only_its_name():
    async with Serving(scripted(), keys=("one", "two")) as server:
        key = {name: {"Authorization": f"Bearer {name}"} for name in ("one", "two")}
        mine = (await server.ask(body(model="reasoner/test"), headers=key["one"])).data["reasoner"]["live"]
        assert (await server.ask(path="/live")).status == 401
        assert (await server.ask(path="/live", headers=key["two"])).data["data"] == []
        assert [e["url"] for e in (await server.ask(path="/live", headers=key["one"])).data["data"]] == [mine]
        assert (await server.ask(path=mine)).status == 200
        assert (await server.ask(path=mine + "/events")).text.startswith("event: end")
        assert (await server.ask(path="/live/guess")).status == 404
        assert (await server.ask(path="/live/")).status in (404, 307)
        assert (await server.ask(path=mine, headers={"Host": "evil.example"})).status == 200, "the name is the key"


async def test_without_keys_another_host_gets_no_page():
    async with Serving(scripted()) as server:
        mine = (await server.ask(body(model="reasoner/test"))).data["reasoner"]["live"]
        assert (await server.ask(path=mine, headers={"Host": "evil.example"})).status == 403


async def test_only_the_latest_are_kept_and_none_where_none_is_wanted():
    async with Serving(scripted(), live=2) as server:
        names = [(await server.ask(body(model="reasoner/test"))).data["reasoner"]["live"] for _ in range(3)]
        assert [(await server.ask(path=name)).status for name in names] == [404, 200, 200]
    async with Serving(scripted(), live=0) as server:
        assert "live" not in (await server.ask(body(model="reasoner/test"))).data["reasoner"]
        assert (await server.ask(path="/live")).data["data"] == []


async def test_a_search_that_is_cancelled_or_fails_ends_its_page_too():
    held = Held()
    down = model(ScriptedPolicy({(): OSError("network down")}))
    async with Serving(model(held), replace(down, id="reasoner/down")) as server:
        _, asking = await server.request(body(model="reasoner/test"))
        await server.until(lambda: held.running)
        (name,) = server.desk.shown
        reader, writer = await server.request(path=f"/live/{name}/events")
        await reader.readuntil(b"\r\n\r\n")
        asking.close()
        assert b'event: failed\ndata: "cancelled"' in await reader.read()
        writer.close()
        assert (await server.ask(body(model="reasoner/down"))).status == 502
        (entry, _) = (await server.ask(path="/live")).data["data"]
        assert entry["state"] == "failed: the policy failed: OSError: network down"


async def test_viewers_that_hang_up_leave_the_search_alone():
    policy = Slow()
    async with Serving(model(policy)) as server:
        asking = asyncio.ensure_future(server.ask(body(model="reasoner/test")))
        await server.until(lambda: server.desk.running)
        (name,) = server.desk.shown
        for _ in range(5):
            reader, writer = await server.request(path=f"/live/{name}/events")
            await reader.readuntil(b"a first step")
            writer.close()
        await server.until(lambda: not server.desk.shown[name].feed._waiting)
        policy.release.set()
        assert (await asking).data["reasoner"]["answer"] == "42"
