"""`OpenAIChat` against servers that ignore, refuse, echo and break off; and what a search over it has cost."""

import asyncio
import json
from typing import Any

import pytest
from o1_reason_openai.chat import OpenAIChat
from o1_reason_openai.endpoint import Endpoint
from o1_reason_openai.wire import Price
from openai_server import Request, Server

from o1_reason import Budget, PolicyError, State, Step, search
from o1_reason.chat import Sampling
from o1_reason.chat_policy import ChatPolicy
from o1_reason.errors import ConfigurationError, ModelError

ASK = [{"role": "user", "content": "What is it?"}]


def chat(server: Server, **settings: Any) -> OpenAIChat:
    return OpenAIChat("m", Endpoint(server.url, patience=5), **{"prefix": "none", **settings})


def saying(*replies: list[str], finish: str = "stop", **more: Any):
    """A server that gives these replies, as many as were asked for, from the first one on."""

    async def handler(request: Request) -> None:
        texts = [replies[i % len(replies)] for i in range(request.body.get("n", 1))]
        await request.stream(texts, finish, **more)

    return handler


async def one_only(request: Request) -> None:
    """Ignores n."""
    await request.stream([["seed", str(request.body["seed"])]])


# Several replies.


async def test_several_replies_come_in_one_request():
    async with Server(saying(["a"], ["b"], ["c"])) as server:
        replies, usage = await chat(server).complete(ASK, Sampling(n=3))
        assert [reply.text for reply in replies] == ["a", "b", "c"]
        assert (usage.calls, usage.completion_tokens) == (1, 3)


async def test_where_n_is_ignored_the_rest_is_asked_for_with_seeds_of_its_own_and_this_is_remembered():
    async with Server(one_only) as server:
        model = chat(server)
        replies, usage = await model.complete(ASK, Sampling(n=3, seed=7))
        assert sorted(reply.text for reply in replies) == ["seed7", "seed8", "seed9"]
        assert usage.calls == 3 == len(server.requests)
        await model.complete(ASK, Sampling(n=3, seed=7))
        assert [request.body.get("n") for request in server.requests] == [3, None, None, None, None, None]


async def test_the_first_of_several_requests_goes_ahead_to_warm_the_prefix_cache():
    async with Server() as server:
        begun = asyncio.Event()

        async def first(request: Request) -> None:
            await asyncio.sleep(0.1)
            assert len(server.requests) == 1, "the others wait for its first token"
            await request.begin()
            await request.token("a")
            await asyncio.wait_for(begun.wait(), 5)  # and for no more than that
            await request.token("b", finish="stop", sent=2)
            await request.end()

        async def other(request: Request) -> None:
            begun.set()
            await request.stream([["c"]])

        server.script, server.answer = [first], other
        replies, _ = await chat(server, n=False).complete(ASK, Sampling(n=3))
        assert [reply.text for reply in replies] == ["ab", "c", "c"]


async def test_more_replies_than_asked_for_are_paid_and_not_used():
    async def two(request: Request) -> None:
        await request.stream([["a"], ["b"]])

    async with Server(two) as server:
        replies, usage = await chat(server).complete(ASK, Sampling(n=1))
        assert len(replies) == 1
        assert usage.completion_tokens == 2 == server.completion_tokens


async def test_one_request_of_several_that_fails_loses_only_its_own_reply():
    async def broken(request: Request) -> None:
        await request.error(500, x_should_retry="false")

    async with Server(one_only) as server:
        model = chat(server, n=False)
        await model.complete(ASK, Sampling(seed=0))
        server.script = [one_only, broken]
        replies, usage = await model.complete(ASK, Sampling(n=3, seed=0))
        assert len(replies) == 2
        assert usage.calls == 3
        server.script = [broken, broken, broken]
        with pytest.raises(ModelError):
            await model.complete(ASK, Sampling(n=3, seed=0))


async def test_greedy_replies_are_asked_for_once():
    async with Server(saying(["a"])) as server:
        replies, _ = await chat(server).complete(ASK, Sampling(n=4, temperature=0))
        assert len(replies) == 1
        assert "n" not in server.requests[0].body


# Stops, finishes, log-probabilities.


async def test_a_stop_string_that_the_server_ignores_ends_the_reply_here_and_the_request_there():
    async def endless(request: Request) -> None:
        await request.begin()
        for i in range(100_000):
            await request.token("word " if i != 3 else "\n\n", sent=i + 1)
            await asyncio.sleep(0)

    async with Server(endless) as server:
        replies, usage = await chat(server).complete(ASK, Sampling(stop=("\n\n",)))
        assert replies[0].text == "word word word "
        assert replies[0].finish == "stop"
        while not server.gone:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert 4 <= usage.completion_tokens <= server.completion_tokens < 100_000


@pytest.mark.parametrize(
    ("finish", "more", "expected"),
    [
        ("length", {}, "length"),
        ("content_filter", {}, "filter"),
        ("stop", {}, "unknown"),
        ("stop", {"stop_reason": None}, "end"),
        ("stop", {"stop_reason": "\n\n"}, "stop"),
    ],
)
async def test_how_a_reply_ended_is_told_apart(finish, more, expected):
    async with Server(saying(["a", " b"], finish=finish, **more)) as server:
        replies, _ = await chat(server).complete(ASK, Sampling(stop=("\n\n",)))
        assert replies[0].finish == expected


async def test_without_stop_strings_a_stop_is_the_end():
    async with Server(saying(["a"])) as server:
        assert (await chat(server).complete(ASK))[0][0].finish == "end"


@pytest.mark.parametrize("raw", [False, True], ids=["chat", "completions"])
async def test_log_probabilities_are_averaged_over_the_tokens_that_count(raw):
    async def handler(request: Request) -> None:
        tokens, values = ["a", "b", "\n\n"], [-0.1, -0.3, -9.0]
        if raw:
            tops = [{token: value, "x": -5.0} for token, value in zip(tokens, values, strict=True)]
            logprobs: Any = {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}
            choice: Any = {"text": "ab", "index": 0, "finish_reason": "stop", "logprobs": logprobs}
        else:
            content = [
                {
                    "token": t,
                    "logprob": v,
                    "top_logprobs": [{"token": t, "logprob": v}, {"token": "x", "logprob": -5.0}],
                }
                for t, v in zip(tokens, values, strict=True)
            ]
            message = {"role": "assistant", "content": "ab"}
            choice = {"message": message, "index": 0, "finish_reason": "stop", "logprobs": {"content": content}}
        usage = {"prompt_tokens": 5, "completion_tokens": 3}
        await request.reply(200, {"choices": [choice], "usage": usage})

    async with Server(handler) as server:
        model = chat(server, stream=False, **({"prefix": "raw", "template": "plain"} if raw else {}))
        replies, usage = await model.complete(ASK, Sampling(stop=("\n\n",), top_logprobs=2))
        assert replies[0].logprob == pytest.approx(-0.2)
        assert replies[0].top_logprobs == ({"a": -0.1, "x": -5.0}, {"b": -0.3, "x": -5.0})
        assert (usage.prompt_tokens, usage.completion_tokens) == (5, 3)
        assert server.requests[0].path == ("/v1/completions" if raw else "/v1/chat/completions")


# Fields that a server does not know.


async def test_fields_that_a_server_refuses_are_left_out_from_then_on():
    async def picky(request: Request) -> None:
        for name in ("seed", "logprobs"):
            if name in request.body:
                await request.reply(422, {"detail": f"Unexpected fields in the request: {{'{name}'}}"})
                return
        await request.stream([["a"]])

    async with Server(picky) as server:
        model = chat(server)
        sampling = Sampling(seed=1, logprobs=True, temperature=0.5, cache_key="k")
        _, usage = await model.complete(ASK, sampling)
        assert usage.calls == 3 == len(server.requests)
        await model.complete(ASK, sampling)
        assert len(server.requests) == 4
        last = server.requests[-1].body
        assert last["prompt_cache_key"] == "k"
        assert last["temperature"] == 0.5


async def test_a_model_that_wants_max_completion_tokens_gets_it():
    async def reasoning(request: Request) -> None:
        if "max_tokens" in request.body:
            await request.error(400, "unsupported_parameter", "max_tokens")
        else:
            await request.stream([["a"]])

    async with Server(reasoning) as server:
        await chat(server).complete(ASK, Sampling(max_tokens=9))
        assert server.requests[-1].body["max_completion_tokens"] == 9


async def test_log_probabilities_that_a_model_forbids_are_done_without():
    async def forbids(request: Request) -> None:
        if "logprobs" in request.body:
            body = {"error": {"message": "You are not allowed to request logprobs from this model", "code": None}}
            await request.reply(403, body)
        else:
            await request.stream([["a"]])

    async with Server(forbids) as server:
        replies, _ = await chat(server).complete(ASK, Sampling(logprobs=True))
        assert replies[0].text == "a"
        with pytest.raises(ConfigurationError, match="key"):
            server.answer = lambda request: request.error(403)
            await chat(server).complete(ASK, Sampling(logprobs=True))


async def test_a_server_that_breaks_on_a_field_is_asked_without():
    async def breaks(request: Request) -> None:
        if "response_format" in request.body:
            await request.error(500, x_should_retry="false")
        else:
            await request.stream([["a"]])

    async with Server(breaks) as server:
        replies, _ = await chat(server).complete(ASK, Sampling(schema={"type": "object"}))
        assert replies[0].text == "a"


async def test_fields_that_the_user_rules_out_are_never_sent():
    async with Server(saying(["a"])) as server:
        await chat(server, without=["seed"], extra={"top_p": 0.9}).complete(ASK, Sampling(seed=1))
        assert "seed" not in server.requests[0].body
        assert server.requests[0].body["top_p"] == 0.9


# Replies that are none.


async def cut(request: Request) -> None:
    await request.begin()
    await request.token("a", sent=1)
    await request.token("b", sent=2)
    await request.end()


async def no_json(request: Request) -> None:
    await request.begin()
    await request.event("{nonsense")
    await request.end()


async def no_choices(request: Request) -> None:
    await request.begin()
    await request.end()


async def error_event(request: Request) -> None:
    await request.begin()
    await request.event({"error": {"message": "out of memory"}})
    await request.end()


@pytest.mark.parametrize("bad", [cut, no_json, no_choices, error_event])
async def test_a_stream_that_breaks_off_is_tried_again_and_paid_for(bad):
    async with Server(saying(["a", "b", "c"])) as server:
        model = chat(server)
        await model.complete(ASK)
        server.script = [bad]
        before = server.completion_tokens
        replies, usage = await model.complete(ASK)
        assert replies[0].text == "abc"
        assert usage.calls == 2
        assert usage.completion_tokens == server.completion_tokens - before


async def test_a_stream_without_usage_is_counted_token_by_token_and_then_not_streamed():
    async def handler(request: Request) -> None:
        if request.body.get("stream"):
            await request.begin()
            for text, finish in (("a", None), ("b", "stop")):
                await request.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})
            await request.end()
        else:
            choice = {"index": 0, "message": {"content": "ab"}, "finish_reason": "stop"}
            await request.reply(200, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})

    async with Server(handler) as server:
        model = chat(server)
        _, usage = await model.complete(ASK)
        assert usage.completion_tokens == 2
        _, usage = await model.complete(ASK)
        assert (usage.prompt_tokens, usage.completion_tokens) == (7, 2)


# Continuing the assistant's text.


def engine(kind: str):
    """A server with a chat template: a turn has three tokens around it, and only some go on with an open one."""

    async def handler(request: Request) -> None:
        body = request.body
        last = body["messages"][-1]
        flagged = body.get("continue_final_message")
        if flagged and kind == "hosted":
            await request.error(400, param="continue_final_message")
            return
        if last["role"] == "assistant" and kind == "strict":
            await request.error(400)
            return
        is_open = (kind == "vllm" and flagged) or (kind == "deepseek" and last.get("prefix"))
        is_open = is_open or (kind == "trims" and flagged)
        content = last["content"].rstrip() if kind == "trims" else last["content"]
        tokens = 3 * len(body["messages"]) + len(content) + (0 if is_open else 4)
        text = last["content"] + " more" if kind == "llamacpp" and last["role"] == "assistant" else "more"
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "length"}
        await request.reply(200, {"choices": [choice], "usage": {"prompt_tokens": tokens, "completion_tokens": 1}})

    return handler


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("vllm", "continue"), ("trims", "continue"), ("deepseek", "prefix"), ("llamacpp", "trailing"),
        ("hosted", "none"), ("ignores", "none"), ("strict", "none"),
    ],
)  # fmt: skip
async def test_the_probe_finds_out_how_a_server_continues(kind, found):
    async with Server(engine(kind)) as server:
        model = chat(server, prefix="auto")
        assert await model.continues() == (found != "none")
        assert model.prefix == found
        assert model._trims == (kind == "trims")
        known = len(server.requests)
        await asyncio.gather(model.continues(), model.continues())
        assert len(server.requests) == known, "it asks once"
        assert model.identity == chat(server, prefix="auto").identity, "what it found is no part of the identity"


async def test_two_searches_that_need_the_probe_wait_for_one():
    async with Server(engine("vllm")) as server:
        model = chat(server, prefix="auto")
        await asyncio.gather(*(model.continues() for _ in range(5)))
        assert sum(1 for request in server.requests if request.path == "/v1/chat/completions") == 3


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("continue", {"role": "assistant", "content": "one\n\n"}),
        ("prefix", {"role": "assistant", "content": "one\n\n", "prefix": True}),
        ("trailing", {"role": "assistant", "content": "one\n\n"}),
    ],
)
async def test_the_beginning_is_sent_as_the_server_wants_it_and_an_echo_is_stripped(prefix, message):
    reply = ["one\n\n", "two"] if prefix == "trailing" else ["two"]
    async with Server(saying(reply)) as server:
        replies, _ = await chat(server, prefix=prefix).complete(ASK, Sampling(), "one\n\n")
        assert replies[0].text.strip() == "two"
        assert server.requests[0].body["messages"] == [*ASK, message]
        assert (server.requests[0].body.get("continue_final_message") is True) == (prefix == "continue")


async def test_a_template_that_trims_is_given_no_stop_string_and_the_reply_is_cut_here():
    async def handler(request: Request) -> None:
        if request.body.get("stream"):
            assert request.body["messages"][-1]["content"] == "one"
            assert "stop" not in request.body
            await request.stream([["\n\n", "two", "\n\n", "three"]])
        else:
            await engine("trims")(request)

    async with Server(handler) as server:
        model = chat(server, prefix="auto")
        assert await model.continues()
        replies, _ = await model.complete(ASK, Sampling(stop=("\n\n",)), "one\n\n")
        assert replies[0].text.strip() == "two"
        assert replies[0].finish == "stop"


async def test_raw_completions_are_rendered_by_the_server_once_a_conversation():
    async def handler(request: Request) -> None:
        if request.path == "/apply-template":
            assert request.body["messages"] == ASK
            await request.reply(200, {"prompt": "<user>What is it?<assistant>"})
        else:
            choice = {"index": 0, "text": "x", "finish_reason": "stop"}
            await request.reply(200, {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    async with Server(handler) as server:
        model = chat(server, prefix="raw", stream=False)
        await model.complete(ASK, Sampling())
        await model.complete(ASK, Sampling(), "one\n\n")
        assert [request.path for request in server.requests] == [
            "/apply-template",
            "/v1/completions",
            "/v1/completions",
        ]
        assert server.requests[-1].body["prompt"] == "<user>What is it?<assistant>one\n\n"


async def test_raw_completions_where_nobody_can_render_say_so():
    async def nothing(request: Request) -> None:
        await request.error(404)

    async with Server(nothing) as server:
        with pytest.raises(ConfigurationError, match="template"):
            await chat(server, prefix="raw").complete(ASK)


# A search over it.


async def test_prompts_of_a_search_only_grow_and_share_one_cache_key():
    async with Server() as server:
        result = await search("What is it?", ChatPolicy(chat(server)), None, "beam", seed=3)
        assert result.answer == "42"
        shown = sorted((json.dumps(request.body["messages"])[:-1] for request in server.requests), key=len)
        assert len(shown) > 1
        assert shown[-1].startswith(shown[0])
        assert len({request.body["prompt_cache_key"] for request in server.requests}) == 1


async def test_the_conversation_keeps_its_roles_tools_and_pictures():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    context: tuple[dict[str, Any], ...] = (
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "seen", "tool_call_id": "1"},
        {"role": "user", "content": [picture]},
    )
    async with Server() as server:
        policy = ChatPolicy(chat(server), instructions="Think.")
        await policy.propose(State("What is it?", (), context), 1)
        shown = server.requests[0].body["messages"]
        assert shown[0] == {"role": "system", "content": "Be kind.\n\nThink."}
        assert shown[1:4] == list(context[1:4])
        assert shown[4] == {"role": "user", "content": [picture, {"type": "text", "text": "What is it?"}]}


async def test_cancelled_calls_are_counted_as_the_server_counts_them():
    async def hangs(request: Request) -> None:
        await request.begin()
        for i in range(5):
            await request.token("a", sent=i + 1)
        await asyncio.sleep(3600)

    async with Server(hangs) as server:
        result = await search("?", ChatPolicy(chat(server)), None, "best_of_n", Budget(max_seconds=0.5))
        assert result.stop == "deadline"
        assert result.usage.calls == len(server.requests) > 0
        assert result.usage.completion_tokens == server.completion_tokens
        assert result.usage.prompt_tokens == server.prompt_tokens


async def test_a_call_that_was_cancelled_before_any_request_costs_nothing():
    async def hangs(request: Request) -> None:
        await asyncio.sleep(3600)

    async with Server(hangs) as server:
        policy = ChatPolicy(chat(server, n=False))
        policy.chat.endpoint.limit.now = 2.0  # type: ignore[attr-defined]
        policy.samples_per_call = 1  # type: ignore[attr-defined]
        result = await search("?", policy, None, "best_of_n", Budget(max_seconds=0.5))
        assert result.usage.calls == len(server.requests) == 2


async def test_calls_that_come_too_late_are_counted():
    decided = asyncio.Event()

    async def handler(request: Request) -> None:
        late = server.running > 3
        if late:
            await decided.wait()
        await request.stream([["Answer:", " 7"]])

    async with Server(handler) as server:
        policy = ChatPolicy(chat(server, n=False))
        policy.samples_per_call = 1  # type: ignore[attr-defined]
        from o1_reason import SelfConsistency

        result = await search("?", policy, None, SelfConsistency(n=5), Budget(concurrency=5))
        decided.set()
        assert result.answer == "7"
        assert result.usage.calls == len(server.requests)


async def test_no_retry_is_started_that_the_budget_has_no_call_for():
    async def broken(request: Request) -> None:
        await request.error(500, retry_after_ms="1")

    async with Server(broken) as server:
        with pytest.raises(PolicyError, match="500"):
            await search("?", ChatPolicy(chat(server)), None, "cot", Budget(max_calls=2))
        assert len(server.requests) == 2


@pytest.mark.parametrize("calls", [1, 2, 5, 9])
@pytest.mark.parametrize("strategy", ["best_of_n", "dvts"])
async def test_a_budget_in_calls_holds_where_n_is_ignored_and_some_requests_fail(calls, strategy):
    async def one(request: Request) -> None:
        if len(server.requests) % 4 == 3:
            await request.error(500, retry_after_ms="1")
        else:
            await request.stream([["Answer:", " 7"]])

    async with Server(one) as server:
        result = await search("?", ChatPolicy(chat(server)), None, strategy, Budget(max_calls=calls))
        assert result.answer == "7"
        assert len(server.requests) == result.usage.calls <= calls


async def test_dollars_are_counted_where_a_price_is_known():
    async def handler(request: Request) -> None:
        details = {"cached_tokens": 600}
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": details}
        choice = {"index": 0, "message": {"content": "Answer: 1"}, "finish_reason": "stop"}
        await request.reply(200, {"choices": [choice], "usage": usage})

    async with Server(handler) as server:
        model = chat(server, stream=False, price=Price(2.0, 8.0, 0.5))
        _, usage = await model.complete(ASK)
        assert usage.cost_usd == pytest.approx((400 * 2.0 + 600 * 0.5 + 100 * 8.0) / 1e6)
        assert model.cached_tokens == 600


async def test_a_step_that_was_cut_is_no_answer_and_one_that_runs_ahead_is_one_step():
    async with Server(saying(["Answer:", " 4"], finish="length")) as server:
        proposals = await ChatPolicy(chat(server)).propose(State("?"), 1)
        assert proposals.candidates == ((Step("Answer: 4", tokens=2),),)
    async with Server(saying(["one\n\n", "two\n\n", "Answer: 3"])) as server:
        proposals = await ChatPolicy(chat(server)).propose(State("?"), 1)
        assert [step.text for step in proposals.candidates[0]] == ["one"]
        assert not proposals.candidates[0][0].terminal
    async with Server(saying(["one\n\n", "Answer: 3"])) as server:
        proposals = await ChatPolicy(chat(server)).propose(State("?"), 1)
        assert proposals.candidates[0][0].answer == "3"


@pytest.mark.parametrize("settings", [{"prefix": "maybe"}, {"template": "jinja"}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError):
        OpenAIChat("m", Endpoint("http://127.0.0.1:1/v1"), **settings)
