import asyncio
import gc
import logging
import re
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import EMBEDDED, Held, Serving, body, model
from typer.testing import CliRunner

from o1_reason import DVTS, BestOfN, Budget, ConfigurationError, Proposals, SelfConsistency, Step, Usage, search
from o1_reason.cli import app as command
from o1_reason.engine import Search
from o1_reason.learn import TraceStore
from o1_reason.messages import asked
from o1_reason.resolve import resolve_strategy
from o1_reason.serve import reply as reply_module
from o1_reason.serve import server as server_module
from o1_reason.serve.desk import Run
from o1_reason.serve.metrics import Metrics
from o1_reason.serve.models import build, load, strategy_for
from o1_reason.serve.story import Story
from o1_reason.serve.wire import IGNORED, REFUSED, ChatRequest
from o1_reason.settings import within
from o1_reason.strategies import STRATEGIES
from o1_reason.testing import RandomWorld, ScriptedPolicy, ScriptedVerifier

SCRIPT = {(): ["think", "= 7"], ("think",): ["= 42"]}


def scripted(strategy="beam", **more):
    verifier = ScriptedVerifier({"= 42": 0.9, "= 7": 0.1, "think": 0.5})
    return model(ScriptedPolicy(SCRIPT, repeat=True), verifier, strategy, **more)


class Broken:
    """A policy that raises, after `wait` seconds."""

    def __init__(self, error, wait=0.0):
        self.error, self.wait = error, wait

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        await asyncio.sleep(self.wait)
        raise self.error


class Endless:
    """A policy whose first call answers at once, and every later one never; counts what is under way."""

    def __init__(self):
        self.asked = self.running = 0

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        self.asked += 1
        if not state.steps:
            return Proposals(((Step("a first step", tokens=3),),), Usage(1, 5, 3))
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        raise AssertionError


# The reply.


async def test_a_whole_reply_holds_answer_reasoning_usage_and_what_openai_has_no_field_for():
    same = await search("4 5 6 10", "embedded", "embedded:prm+rules", "beam")
    async with Serving() as server:
        reply = await server.ask(body())
    data = reply.data
    message = data["choices"][0]["message"]
    assert (reply.status, data["object"], data["model"]) == (200, "chat.completion", "reasoner/embedded")
    assert (message["role"], message["content"]) == ("assistant", same.answer)
    assert message["reasoning_content"] == same.text
    assert data["choices"][0]["finish_reason"] == "stop"
    assert data["usage"] == {
        "prompt_tokens": same.usage.prompt_tokens,
        "completion_tokens": same.usage.completion_tokens,
        "total_tokens": same.usage.tokens,
        "completion_tokens_details": {"reasoning_tokens": same.policy_usage.completion_tokens},
    }
    assert data["reasoner"]["confidence"] == same.confidence
    assert data["reasoner"]["nodes"] == len(same.tree) - 1
    assert data["id"] == reply.headers["x-request-id"]


async def test_a_stream_tells_the_search_as_it_goes_then_the_answer_then_the_usage():
    async with Serving() as server:
        whole = (await server.ask(body())).data
        reply = await server.ask(body(stream=True, stream_options={"include_usage": True}))
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = reply.events
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert reply.streamed("content") == whole["choices"][0]["message"]["content"]
    assert (
        reply.streamed("reasoning_content")
        .rstrip("\n")
        .endswith(whole["choices"][0]["message"]["reasoning_content"][-20:])
    )
    assert sum("reasoning_content" in chunk["choices"][0]["delta"] for chunk in chunks) > 2
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    live = {chunks[-1]["reasoner"].pop("live"), whole["reasoner"].pop("live")}
    assert chunks[-1]["reasoner"] == whole["reasoner"]
    assert (len(live), reply.headers["x-reasoner-live"] in live) == (2, True)


async def test_without_include_usage_no_chunk_has_usage():
    async with Serving(scripted()) as server:
        events = (await server.ask(body(model="reasoner/test", stream=True))).events
    assert not any("usage" in event for event in events if event != "[DONE]")


async def test_reasoning_is_streamed_while_the_search_still_runs():
    policy = Endless()
    async with Serving(model(policy)) as server:
        reader, writer = await server.request(body(model="reasoner/test", stream=True))
        read = b""
        while b"a first step" not in read:
            read += await asyncio.wait_for(reader.read(1000), 5)
        assert policy.running == 1
        writer.close()


async def test_a_stream_where_nothing_happens_is_kept_open_by_comments(monkeypatch):
    monkeypatch.setattr(reply_module, "QUIET", 0.01)
    policy = Endless()
    async with Serving(model(policy)) as server:
        reader, writer = await server.request(body(model="reasoner/test", stream=True))
        read = b""
        while read.count(b": searching\n\n") < 3:
            read += await asyncio.wait_for(reader.read(1000), 5)
        writer.close()


async def test_searches_are_recorded_and_one_that_cannot_be_is_answered_all_the_same(tmp_path, caplog):
    with TraceStore(tmp_path / "traces.jsonl") as store:
        async with Serving(EMBEDDED, model(ScriptedPolicy({(): ["= 42"]}, identity="")), record=store) as server:
            for seed in (0, 1, 0):
                assert (await server.ask(body(seed=seed))).status == 200
            reply = await server.ask(body(model="reasoner/test"))
            assert reply.status == 200
    assert sorted(trace["seed"] for trace in TraceStore(tmp_path / "traces.jsonl")) == [0, 1]
    assert "identity" in caplog.text


async def test_no_answer_is_said_and_a_limit_is_told_by_the_finish_reason():
    async with Serving(scripted(), model_of_nothing()) as server:
        limited = (await server.ask(body(model="reasoner/test", max_completion_tokens=1))).data["choices"][0]
        nothing = (await server.ask(body(model="reasoner/nothing"))).data["choices"][0]
    assert (limited["finish_reason"], limited["message"]["content"]) == ("length", "No answer was found (budget).")
    assert (nothing["finish_reason"], nothing["message"]["content"]) == ("stop", "No answer was found (exhausted).")


async def test_an_answer_that_the_verifier_rules_out_is_not_given_as_one():
    ruled_out = model(ScriptedPolicy({(): ["= 7"]}, repeat=True), ScriptedVerifier({}, 0.0))
    async with Serving(ruled_out) as server:
        data = (await server.ask(body(model="reasoner/test"))).data
        assert server.desk.metrics.total("o1_reason_searches_total", outcome="unanswered") == 1
    assert data["choices"][0]["message"]["content"] == "No answer passed the check; the best attempt was 7"
    assert data["reasoner"]["answer"] == "7"


def model_of_nothing():
    made = model(ScriptedPolicy({}))
    return type(made)("reasoner/nothing", made.policy, None, made.strategy, made.budget)


# What a request says.


def test_the_last_user_message_is_the_question_and_the_rest_its_context():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "after"},
    ]
    question, context = ChatRequest(model="m", messages=messages).question()
    assert question == "second"
    plain = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
    assert context == (*plain[:4], plain[5])
    assert (question, context) == asked(messages), "as in a graph"


def test_what_a_question_holds_beside_text_stands_right_before_it():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": "what is "}, picture, {"type": "text", "text": "this?"}]
    question, context = ChatRequest(model="m", messages=[{"role": "user", "content": parts}]).question()
    assert (question, context) == ("what is this?", ({"role": "user", "content": [picture]},))
    assert (question, context) == asked([{"role": "user", "content": parts}]), "as in a graph"


SAYS_MORE = {
    "n": 2, "tools": [{"type": "function"}], "functions": [{"name": "f"}], "tool_choice": "required",
    "function_call": {"name": "f"}, "response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 3,
    "stop": ["\n"], "logit_bias": {"5": 1}, "modalities": ["text", "audio"], "audio": {"voice": "x"},
    "web_search_options": {},
}  # fmt: skip


async def test_what_cannot_be_honoured_is_refused_and_what_to_do_is_said():
    assert SAYS_MORE.keys() == REFUSED.keys()
    async with Serving(scripted()) as server:
        for name, value in SAYS_MORE.items():
            reply = await server.ask(body(model="reasoner/test", **{name: value}))
            assert (reply.status, reply.error["param"]) == (400, name)
            assert reply.error["code"] == "unsupported_parameter"
            assert REFUSED[name][1] in reply.error["message"]


def test_fields_that_say_nothing_or_change_nothing_are_accepted():
    harmless = {name: values[0] for name, (values, _) in REFUSED.items() if values}
    fields = {**harmless, **dict.fromkeys(IGNORED, "anything"), "seed": None, "stream": None, "reasoner": None}
    request = ChatRequest(**body(**fields))
    assert request == ChatRequest(**body())


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"frobnicate": 1}, "frobnicate"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"seed": "x"}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"reasoning_effort": "huge"}, "reasoner"),
        ({"reasoner": {"strategy": "dream"}}, "reasoner"),
        ({"reasoner": {"options": {"depth": 3}}}, "reasoner"),
        ({"reasoner": {"options": {"width": "many"}}}, "reasoner"),
        ({"reasoner": {"options": {"width": 10**9}}}, "reasoner"),
        ({"reasoner": {"strategy": "mcts", "options": {"simulations": 10**12}}}, "reasoner"),
        ({"reasoner": {"budget": {"max_dreams": 3}}}, "reasoner"),
        ({"reasoner": {"budget": {"max_calls": -1}}}, "reasoner"),
        ({"reasoner": {"policy": "embedded"}}, "reasoner.policy"),
    ],
)  # fmt: skip
async def test_a_wrong_request_is_a_400_that_names_the_field(wrong, param):
    async with Serving(scripted()) as server:
        reply = await server.ask({**body(model="reasoner/test"), **wrong})
        assert server.desk.metrics.total("o1_reason_searches_total") == 0
    assert (reply.status, reply.error["type"], reply.error["param"]) == (400, "invalid_request_error", param)


async def test_what_is_no_json_is_a_400_and_other_paths_are_a_404_that_names_those_there_are():
    async with Serving(scripted()) as server:
        assert (await server.ask(b"{")).status == 400
        assert (await server.ask(b"[]")).status == 400
        for missing in ({"path": "/v1/embeddings", "data": {}}, {"path": "/"}, {"path": "/docs"}):
            reply = await server.ask(**missing)
            assert (reply.status, "POST /v1/chat/completions" in reply.error["message"]) == (404, True)
        assert (await server.ask(path="/v1/chat/completions")).status == 405


async def test_models_are_listed_and_an_unknown_one_is_told_which_there_are():
    async with Serving(EMBEDDED, scripted()) as server:
        listed = (await server.ask(path="/v1/models")).data
        one = (await server.ask(path="/v1/models/reasoner/test")).data
        unknown = await server.ask(body(model="o1"))
        assert (await server.ask(path="/v1/models/o1")).status == 404
    assert [card["id"] for card in listed["data"]] == ["reasoner/embedded", "reasoner/test"]
    assert one["id"] == "reasoner/test"
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert "reasoner/embedded, reasoner/test" in unknown.error["message"]


# What a request changes.


async def test_strategy_options_budget_and_seed_of_a_request_are_those_of_its_search():
    async with Serving() as server:
        wish = {"strategy": "best_of_n", "options": {"n": 3}, "budget": {"max_calls": 50}}
        reply = await server.ask(body("2 5 7 11", seed=7, reasoner=wish))
        bounded = await server.ask(body("2 5 7 11", reasoner={"budget": {"max_nodes": 2}}))
    same = await search("2 5 7 11", "embedded", "embedded:prm+rules", BestOfN(n=3), Budget(max_calls=50), seed=7)
    assert reply.data["reasoner"]["policy"] == same.policy_usage.to_data()
    assert reply.data["reasoner"]["ranking"] == [list(entry) for entry in same.ranking]
    assert bounded.data["reasoner"]["nodes"] <= 2


limits = st.fixed_dictionaries(
    {}, optional={
        "max_calls": st.none() | st.integers(0, 9), "max_tokens": st.none() | st.integers(0, 9),
        "max_seconds": st.none() | st.floats(0, 9), "max_usd": st.none() | st.floats(0, 9),
        "max_nodes": st.none() | st.integers(0, 9), "concurrency": st.integers(1, 9),
    },
)  # fmt: skip


@given(limits, limits)
def test_no_request_gets_more_than_the_server_allows_or_than_it_asked_for(most, wanted):
    allowed = Budget(**most)
    got = within(allowed, wanted)
    for name in ("max_calls", "max_tokens", "max_seconds", "max_usd", "max_nodes", "concurrency"):
        value, ceiling, wish = getattr(got, name), getattr(allowed, name), wanted.get(name)
        known = [limit for limit in (ceiling, wish) if limit is not None]
        assert value == (min(known) if known else None)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "cot"])
def test_more_effort_is_a_wider_search_in_every_strategy_that_has_a_width(name):
    made = [strategy_for(EMBEDDED, name, {}, effort) for effort in ("minimal", "low", "medium", "high", "xhigh")]
    assert made[2] == resolve_strategy(name)
    assert len(set(made)) == 5


def test_options_win_over_effort_and_dvts_keeps_whole_groups():
    assert strategy_for(EMBEDDED, "dvts", {}, "minimal") == DVTS(n=4, branch=4)
    assert strategy_for(EMBEDDED, "self_consistency", {"n": 5}, "xhigh") == SelfConsistency(n=5)
    assert strategy_for(EMBEDDED, "cot", {}, "high") == resolve_strategy("cot")


async def test_more_effort_spends_more():
    async with Serving() as server:
        replies = [await server.ask(body(reasoning_effort=effort)) for effort in ("minimal", "medium", "xhigh")]
    calls = [reply.data["usage"]["total_tokens"] for reply in replies]
    assert calls[0] < calls[1] < calls[2]


# Models.


@pytest.mark.parametrize(
    ("policy", "name", "id"),
    [
        ("embedded", None, "reasoner/embedded"),
        ("openai:o1?base_url=http://127.0.0.1:1/v1", None, "reasoner/o1"),
        ("openai:Qwen/Qwen3-8B?base_url=http://127.0.0.1:1/v1", None, "reasoner/Qwen/Qwen3-8B"),
        ("embedded", "mine", "reasoner/mine"),
    ],
)
def test_a_model_is_named_after_its_policy_and_never_begins_with_o1(policy, name, id, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert build(policy, None, resolve_strategy("cot"), Budget(), name).id == id


def test_a_file_names_several_models_with_their_own_strategies_and_budgets(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(
        '[reasoner.quick]\npolicy = "embedded"\nverifier = "none"\nstrategy = "self_consistency"\noptions = {n = 4}\n'
        '[reasoner.deep]\npolicy = "embedded"\nstrategy = "mcts"\nbudget = {max_calls = 9}\n'
        '[reasoner.plain]\npolicy = "embedded"\n'
    )
    quick, deep, plain = load(path, Budget(max_seconds=60))
    assert (quick.id, quick.verifier, quick.strategy) == ("reasoner/quick", None, SelfConsistency(n=4))
    assert (deep.strategy, deep.budget) == (resolve_strategy("mcts"), Budget(max_seconds=60, max_calls=9))
    assert (plain.strategy, type(plain.verifier).__name__) == (resolve_strategy("beam"), "Gate")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"needs a table \[reasoner.NAME\]"),
        ("reasoner = 3", "needs a table"),
        ("[reasoner.x]\n", r"\[reasoner.x\] needs a policy"),
        ('[reasoner.x]\npolicy = "embedded"\nwidth = 3', "width = 3 cannot be used; there are: policy"),
        ('[reasoner.x]\npolicy = "embedded"\nstrategy = 3', "strategy = 3 cannot be used"),
        ('[reasoner.x]\npolicy = "nowhere"', "no adapter 'nowhere'"),
        ('[reasoner.x]\npolicy = "embedded"\nstrategy = "dream"', "unknown strategy 'dream'"),
        ('[reasoner.x]\npolicy = "embedded"\noptions = {n = 3}', "'n' is no setting of BeamSearch"),
        ('[reasoner.x]\npolicy = "embedded"\nbudget = {calls = 3}', "a budget has no calls"),
        ("[reasoner", "cannot be read"),
    ],
)
def test_a_wrong_file_of_models_is_told_what_is_wrong(tmp_path, text, why):
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=why):
        load(path, Budget())


def test_a_model_without_a_limit_on_nodes_is_refused():
    with pytest.raises(ConfigurationError, match="needs a limit on nodes"):
        scripted(budget=Budget(max_nodes=None))


# The story.


def event(kind, node, **more):
    return {"event": kind, "node": node, **more}


def created(node, parent, depth, text):
    return event("created", node, parent=parent, depth=depth, text=text, terminal=False, answer=None)


def test_a_story_follows_the_deepest_and_best_path_and_says_where_it_turns_back():
    story = Story(judged=True)
    assert story.goes_on([created(1, 0, 1, "a"), created(2, 0, 1, "b")]) == "", "not judged yet"
    assert story.goes_on([event("scored", 1, reward=0.4), event("scored", 2, reward=0.6)]) == "b\n"
    assert story.goes_on([created(3, 1, 2, "c"), event("scored", 3, reward=0.1)]) == "\n↩ back to the start\na\nc\n"
    assert story.goes_on([created(4, 1, 2, "d"), event("scored", 4, reward=0.1)]) == "", "no better"
    assert story.goes_on([created(5, 1, 2, "e"), event("scored", 5, reward=0.2)]) == "\n↩ back to step 1\ne\n"


def test_a_story_without_a_verifier_follows_what_is_created():
    story = Story(judged=False)
    assert story.goes_on([created(1, 0, 1, "a"), created(2, 1, 2, "b"), created(3, 0, 1, "c")]) == "a\nb\n"


@given(st.integers(0, 10**6), st.sampled_from([*STRATEGIES]), st.booleans())
def test_every_story_read_with_its_turns_ends_on_the_chosen_path(seed, name, judged):
    world = RandomWorld(seed)
    strategy = resolve_strategy(name)
    judged = judged and getattr(strategy, "uses_verifier", True)
    story, told = Story(judged), []
    result = asyncio.run(
        search("q", world, world if judged else None, strategy, Budget(max_nodes=60, concurrency=3),
               on_event=lambda event: told.append(story.goes_on([event])))
    )  # fmt: skip
    path = []
    for line in "".join([*told, story.ends(result)]).splitlines():
        back = re.fullmatch(r"↩ back to (the start|step (\d+))", line)
        if back:
            assert int(back[2] or 0) < len(path), "back means back"
            del path[int(back[2] or 0) :]
        elif line:
            path.append(line)
    if result.node is not None:
        assert "\n".join(path) == result.text


# Who may ask.


async def test_with_keys_one_of_them_is_needed_everywhere_but_for_health():
    async with Serving(scripted(), keys=("first", "zweiter-schlüssel")) as server:
        asked = body(model="reasoner/test")
        for wrong in ({}, {"Authorization": "Bearer firs"}, {"Authorization": "Bearer "}, {"Authorization": "first"},
                      {"Authorization": "Basic first"}):  # fmt: skip
            for path, data in (("/v1/chat/completions", asked), ("/v1/models", None), ("/metrics", None)):
                reply = await server.ask(data, path, headers=wrong)
                assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
                assert reply.headers["www-authenticate"] == "Bearer"
        assert server.desk.metrics.total("o1_reason_searches_total") == 0
        assert (await server.ask(path="/health")).status == 200
        for right in ("Bearer first", "bearer zweiter-schlüssel"):
            assert (await server.ask(asked, headers={"Authorization": right})).status == 200


async def test_without_keys_only_requests_that_name_this_machine_are_served():
    async with Serving(scripted()) as server:
        for host in ("evil.example:8000", "192.0.2.1", "127.0.0.1.evil.example", "", "[::"):
            reply = await server.ask(body(model="reasoner/test"), headers={"Host": host})
            assert reply.status in (400, 403), host
        for host in ("localhost:8000", "127.0.0.1", "127.8.8.8:1", "[::1]:8000"):
            assert (await server.ask(path="/v1/models", headers={"Host": host})).status == 200, host
        assert server.desk.metrics.total("o1_reason_searches_total") == 0
    async with Serving(scripted(), keys=("k",)) as server:
        named = {"Host": "chat.example", "Authorization": "Bearer k"}
        assert (await server.ask(path="/v1/models", headers=named)).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_that_a_browser_sends_for_any_page_is_refused(kind):
    async with Serving(scripted()) as server:
        reply = await server.ask(body(model="reasoner/test"), headers={"Content-Type": kind})
    assert (reply.status, "application/json" in reply.error["message"]) == (415, True)


async def test_no_web_page_may_call_unless_its_origin_is_named():
    preflight = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
    async with Serving(scripted()) as server:
        reply = await server.ask(headers=preflight, method="OPTIONS")
        assert "access-control-allow-origin" not in reply.headers
    async with Serving(scripted(), keys=("k",), cors_origins=("https://chat.example",)) as server:
        reply = await server.ask(headers=preflight, method="OPTIONS")
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "https://chat.example")
        other = await server.ask(headers={**preflight, "Origin": "https://evil.example"}, method="OPTIONS")
        assert "access-control-allow-origin" not in other.headers
        refused = await server.ask(body(), headers={"Origin": "https://chat.example"})
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://chat.example")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limit_is_refused(chunked):
    async with Serving(scripted(), body_bytes=1000) as server:
        assert (await server.ask(body("x" * 800, "reasoner/test"), chunked=chunked)).status == 200
        reply = await server.ask(body("x" * 1000, "reasoner/test"), chunked=chunked)
        assert server.desk.metrics.total("o1_reason_searches_total") == 1
    assert (reply.status, reply.error["message"]) == (413, "a request may have 1000 bytes")


# Errors.


class UpstreamError(ConfigurationError):
    """As an adapter raises it when a model's server has refused its key."""

    def __init__(self):
        super().__init__("wrong key")
        self.__cause__ = OSError("401")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "said", "retry"),
    [
        (OSError("network down"), 502, "the policy failed: OSError: network down", "false"),
        (ConfigurationError("not in my domain"), 400, "not in my domain", None),
        (UpstreamError(), 502, "wrong key", "false"),
    ],
)  # fmt: skip
async def test_a_search_that_fails_has_the_status_of_its_error(stream, error, status, said, retry):
    async with Serving(model(Broken(error))) as server:
        reply = await server.ask(body(model="reasoner/test", stream=stream))
        assert server.desk.metrics.total("o1_reason_searches_total", outcome="failed") == 1
    assert (reply.status, reply.error["message"], reply.headers.get("x-should-retry")) == (status, said, retry)


class BrokenStrategy:
    uses_verifier = False

    def select(self, tree, room):
        raise RuntimeError("the secret in the source")

    def backup(self, tree, new): ...

    def done(self, tree):
        return False

    def answer(self, tree):
        return None


async def test_a_bug_is_a_500_that_tells_the_log_and_not_the_client(caplog):
    broken = model(ScriptedPolicy({}))
    broken = type(broken)(broken.id, broken.policy, None, BrokenStrategy(), broken.budget)
    async with Serving(broken) as server:
        reply = await server.ask(body(model="reasoner/test"))
    assert (reply.status, "secret" in reply.text) == (500, False)
    assert "the secret in the source" in caplog.text


async def test_an_error_after_the_stream_has_begun_is_an_event_of_it(monkeypatch):
    monkeypatch.setattr(reply_module, "PATIENCE", 0.01)
    async with Serving(model(Broken(OSError("late"), wait=0.1))) as server:
        reply = await server.ask(body(model="reasoner/test", stream=True))
    assert reply.status == 200
    assert reply.events[-1]["error"]["message"] == "the policy failed: OSError: late"
    assert "[DONE]" not in reply.events


async def test_the_log_tells_searches_and_not_what_they_were_about(caplog):
    caplog.set_level(logging.INFO, "o1_reason.serve")
    async with Serving(scripted()) as server:
        reply = await server.ask(body("a private question", "reasoner/test"))
    assert reply.headers["x-request-id"] in caplog.text
    assert "private" not in caplog.text


# How much at once.


async def test_places_are_given_in_order_and_beyond_the_queue_comes_429():
    policy = Held()
    async with Serving(model(policy), searches=2, queue=3) as server:
        asked = [asyncio.create_task(server.ask(body(model="reasoner/test", stream=i % 2 == 1))) for i in range(5)]
        await server.until(lambda: (policy.running, server.desk.waiting) == (2, 3))
        refused = await server.ask(body(model="reasoner/test"))
        health = (await server.ask(path="/health")).data
        policy.release.set()
        replies = await asyncio.gather(*asked)
        page = (await server.ask(path="/metrics")).text
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["retry-after"]) >= 1
    assert health == {"status": "ok", "running": 2, "waiting": 3}
    assert [reply.status for reply in replies] == [200] * 5
    assert policy.peak == 2
    assert 'o1_reason_refused_total{reason="busy"} 1' in page
    assert 'o1_reason_requests_total{status="429"} 1' in page
    assert 'o1_reason_searches_total{model="reasoner/test",outcome="answered"} 5' in page


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_takes_its_search_along(stream):
    policy = Endless()
    async with Serving(model(policy)) as server:
        _, writer = await server.request(body(model="reasoner/test", stream=stream))
        await server.until(lambda: policy.running == 1)
        writer.close()
        await server.until(lambda: policy.running == 0 and server.idle, 1.0)
        metrics = server.desk.metrics
        assert metrics.total("o1_reason_searches_total", outcome="cancelled") == 1
        assert metrics.total("o1_reason_model_calls_total") == 2, "the one cut off is paid, too"
        assert metrics.total("o1_reason_tokens_total", kind="completion") == 3


async def test_a_client_that_goes_away_while_it_waits_leaves_the_queue_and_is_never_searched_for():
    policy = Held()
    async with Serving(model(policy), searches=1, queue=1) as server:
        first = asyncio.create_task(server.ask(body(model="reasoner/test")))
        await server.until(lambda: policy.running == 1)
        _, writer = await server.request(body(model="reasoner/test"))
        await server.until(lambda: server.desk.waiting == 1)
        writer.close()
        await server.until(lambda: server.desk.waiting == 0, 1.0)
        third = asyncio.create_task(server.ask(body(model="reasoner/test")))
        await server.until(lambda: server.desk.waiting == 1)
        policy.release.set()
        assert [(await first).status, (await third).status] == [200, 200]
    assert policy.asked == 2


async def test_200_requests_at_once_are_all_answered_or_refused_and_none_is_lost():
    async with Serving(searches=8, queue=64) as server:
        asked = (server.ask(body("4 5 6 10", stream=i % 2 == 1, seed=i)) for i in range(200))
        replies = await asyncio.gather(*asked)
        assert server.idle
        metrics = server.desk.metrics
        count = Counter(reply.status for reply in replies)
        assert count.keys() <= {200, 429}
        assert count[200] >= 72, "as many as there are places"
        assert metrics.total("o1_reason_searches_total", outcome="answered") == count[200]
        assert metrics.total("o1_reason_refused_total") == count[429]
    for reply in replies:
        if reply.status == 429:
            assert int(reply.headers["retry-after"]) >= 1
        elif reply.headers["content-type"].startswith("text/event-stream"):
            assert reply.events[-1] == "[DONE]"
            assert reply.streamed("content")
        else:
            assert reply.data["choices"][0]["message"]["content"]


def living():
    """Searches in memory, by their ids."""
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if type(thing) in (Search, Run)}


async def test_50_clients_that_vanish_leave_no_search_within_a_second_and_nothing_behind():
    hard = body(reasoner={"strategy": "mcts", "options": {"simulations": 4000}})
    async with Serving(searches=16, queue=64) as server:
        await server.ask(body())  # whatever is loaded once
        tasks, before = len(asyncio.all_tasks()), living()
        for _ in range(3):
            opened = [await server.request({**hard, "stream": i % 2 == 1}) for i in range(50)]
            await server.until(lambda: (server.desk.running, server.desk.waiting) == (16, 34))
            for _, writer in opened:
                writer.close()
            del opened, writer
            await server.until(lambda: server.idle, 1.0)
        await server.until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert server.desk.metrics.total("o1_reason_searches_total", outcome="cancelled") == 150
        assert (await server.ask(body())).status == 200, "and it still serves"
        assert living() <= before


# The end.


async def test_on_shutdown_what_runs_may_end_and_what_waits_is_told_to_come_again():
    policy = Held()
    async with Serving(model(policy), searches=1, grace=10) as server:
        runs = asyncio.create_task(server.ask(body(model="reasoner/test", stream=True)))
        await server.until(lambda: policy.running == 1)
        waits = asyncio.create_task(server.ask(body(model="reasoner/test")))
        await server.until(lambda: server.desk.waiting == 1)
        server.server.should_exit = True
        turned_away = await waits
        assert (turned_away.status, turned_away.error["code"]) == (503, "shutting_down")
        with pytest.raises(OSError, match="onnect"):
            while True:
                await server.ask(path="/health")
        policy.release.set()
        assert (await runs).streamed("content") == "42"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_outlasts_the_grace_period_is_cancelled_and_told(stream, monkeypatch):
    monkeypatch.setattr(reply_module, "PATIENCE", 0.01)
    policy = Held()
    async with Serving(model(policy), grace=0.05) as server:
        asked = asyncio.create_task(server.ask(body(model="reasoner/test", stream=stream)))
        await server.until(lambda: policy.running == 1)
        await asyncio.sleep(0.05)
        server.server.should_exit = True
        reply = await asked
    assert policy.running == 0
    assert (reply.events[-1] if stream else reply.data)["error"]["code"] == "shutting_down"


async def test_the_ledger_is_shared_by_all_searches_and_closed_at_the_end(tmp_path):
    path = tmp_path / "calls.sqlite"
    policy = ScriptedPolicy({(): ["= 42"]}, repeat=True)
    async with Serving(model(policy), ledger=path) as server:
        for _ in range(2):
            assert (await server.ask(body(model="reasoner/test"))).data["choices"][0]["message"]["content"] == "42"
    assert len(policy.calls) == 1
    assert server.desk.ledger._connection is None


# Metrics.

LINE = re.compile(r'([a-z0-9_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? ([-+0-9.e]+)')


def test_the_page_of_metrics_is_in_prometheus_format():
    metrics = Metrics()
    odd = 'a"b\\c\nd'
    for seconds in (0.01, 0.1, 0.2, 9999.0):
        metrics.took(odd, seconds)
    metrics.spent(odd, "policy", Usage(2, 30, 4, 0.5))
    page = metrics.render({"o1_reason_searches_running": 3, "o1_reason_searches_waiting": 0})
    assert page.endswith("\n")
    samples = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, labels, value = LINE.fullmatch(line).groups()
            samples[name, labels or ""] = float(value)
    label = r'model="a\"b\\c\nd"'
    buckets = [value for (name, _), value in samples.items() if name == "o1_reason_search_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert samples["o1_reason_search_seconds_bucket", f'{{{label},le="0.1"}}'] == 2, "a bound belongs to its bucket"
    assert samples["o1_reason_search_seconds_bucket", f'{{{label},le="+Inf"}}'] == 4
    assert samples["o1_reason_search_seconds_count", f"{{{label}}}"] == 4
    assert samples["o1_reason_search_seconds_sum", f"{{{label}}}"] == pytest.approx(9999.31)
    assert samples["o1_reason_tokens_total", f'{{{label},role="policy",kind="prompt"}}'] == 30
    assert samples["o1_reason_dollars_total", f'{{{label},role="policy"}}'] == 0.5
    assert samples["o1_reason_searches_running", ""] == 3


# The command.


def refused(*arguments, **env):
    result = CliRunner().invoke(command, ["serve", *arguments], env=env)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_can_reach_is_refused_without_a_key(host):
    assert "API keys are needed" in refused("--host", host)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--cors-origin", "*"], "name the web origins"),
        (["--api-key", " "], "an API key is empty"),
        (["--policy", "nowhere"], "no adapter 'nowhere'"),
        (["--strategy", "dream"], "unknown strategy"),
        (["-o", "n=3"], "'n=3' is no setting of BeamSearch"),
        (["--models", "/nowhere/models.toml"], "cannot be read"),
        (["--searches", "0"], "--searches"),
        (["--port", "70000"], "--port"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_served(arguments, why):
    assert why in refused(*arguments)


@pytest.mark.parametrize("missing", ["uvicorn", "fastapi"])
def test_without_the_extra_the_command_says_what_to_install(missing, monkeypatch):
    monkeypatch.delitem(sys.modules, "o1_reason.serve.app", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert "pip install 'o1-reason[serve]'" in refused()


def test_keys_come_from_the_environment_too_separated_by_blanks(monkeypatch):
    seen = {}
    monkeypatch.setattr(server_module, "run", lambda models, **given: seen.update(given, models=models))
    result = CliRunner().invoke(command, ["serve", "--host", "0.0.0.0"], env={"O1_REASON_API_KEYS": "one two"})
    assert result.exit_code == 0, result.output
    assert (seen["keys"], seen["models"][0].id) == (("one", "two"), "reasoner/embedded")
    assert seen["models"][0].budget.max_seconds == 300
