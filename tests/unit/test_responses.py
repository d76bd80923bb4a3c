"""The Responses API of `serve`, with the official client against a real server on loopback."""

import asyncio
from contextlib import asynccontextmanager

import openai
import pytest
from serving import Held, Serving, model

from o1_reason import search
from o1_reason.errors import PolicyError
from o1_reason.messages import asked
from o1_reason.serve.responses import IGNORED, REFUSED, ResponsesRequest
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

MODEL = "reasoner/test"
SCRIPT = {(): ["think", "= 7"], ("think",): ["= 42"]}
SCRIPTED = model(ScriptedPolicy(SCRIPT, repeat=True), ScriptedVerifier({"= 42": 0.9, "= 7": 0.1, "think": 0.5}), "beam")


@asynccontextmanager
async def serving(*models, **settings):
    async with (
        Serving(*models, **settings) as server,
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client,
    ):
        yield server, client


async def test_the_openai_client_creates_a_response_with_reasoning_answer_and_usage():
    same = await search("4 5 6 10", "embedded", "embedded:prm+rules", "beam")
    async with serving() as (_, client):
        reply = await client.responses.create(model="reasoner/embedded", input="4 5 6 10")
    thought, message = reply.output
    assert (reply.status, reply.output_text) == ("completed", same.answer)
    assert (thought.type, thought.summary[0].text) == ("reasoning", same.text)
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert reply.usage is not None
    assert (reply.usage.total_tokens, reply.usage.input_tokens) == (same.usage.tokens, same.usage.prompt_tokens)
    assert reply.usage.output_tokens_details.reasoning_tokens == same.policy_usage.completion_tokens
    assert reply.model_extra["reasoner"]["confidence"] == same.confidence


async def test_the_openai_client_streams_the_reasoning_while_it_searches_and_then_the_answer():
    async with serving(SCRIPTED) as (_, client):
        events = [e async for e in await client.responses.create(model=MODEL, input="q", stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = kinds.count("reasoning_summary_text.delta")
    assert deltas > 1
    assert kinds == [
        "created", "in_progress", "output_item.added", "reasoning_summary_part.added",
        *["reasoning_summary_text.delta"] * deltas, "reasoning_summary_text.done", "reasoning_summary_part.done",
        "output_item.done", "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    story = "".join(event.delta for event in events if event.type == "response.reasoning_summary_text.delta")
    final = events[-1].response
    assert final.output_text == "42"
    assert final.output[0].summary[0].text == story
    assert story.rstrip().endswith("think\n= 42")


async def test_the_clients_stream_helper_puts_the_same_response_together():
    async with serving(SCRIPTED) as (_, client), client.responses.stream(model=MODEL, input="q") as stream:
        final = await stream.get_final_response()
    assert (final.status, final.output_text) == ("completed", "42")


async def test_a_limit_met_before_any_answer_makes_it_incomplete():
    async with serving(SCRIPTED) as (_, client):
        reply = await client.responses.create(model=MODEL, input="q", max_output_tokens=1)
    assert reply.incomplete_details is not None
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert reply.output_text == "No answer was found (budget)."


async def test_wishes_and_effort_are_those_of_chat_completions():
    async with serving(SCRIPTED) as (server, client):
        seen = []
        admit = server.desk.admit
        server.desk.admit = lambda job, owner=b"": (seen.append(job), admit(job, owner))[1]
        await client.responses.create(
            model=MODEL, input="q", instructions="be brief", reasoning={"effort": "high", "summary": "auto"},
            max_output_tokens=50, extra_body={"seed": 5, "reasoner": {"strategy": "mcts"}},
        )  # fmt: skip
    (job,) = seen
    assert (type(job.strategy).__name__, job.strategy.simulations) == ("MCTS", 128)
    assert (job.budget.max_tokens, job.seed) == (50, 5)
    assert job.context == ({"role": "system", "content": "be brief"},)


def test_input_items_become_the_conversation_and_earlier_reasoning_is_left_out():
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    request = ResponsesRequest(
        model="m",
        input=[
            {"role": "user", "content": "first"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "one", "annotations": []}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "and this?"}, picture]},
        ],
    )  # fmt: skip
    question, context = request.as_chat().question()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "auto"}}
    assert question == "and this?"
    assert context == (
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": [image]},
    )
    as_chat = [message.plain() for message in request.as_chat().messages]
    assert (question, context) == asked(as_chat), "as in a graph"


SAYS_MORE = {
    "tools": [{"type": "web_search"}], "tool_choice": "required", "previous_response_id": "resp_1",
    "conversation": "conv_1", "background": True, "prompt": {"id": "p"}, "top_logprobs": 3,
}  # fmt: skip


async def test_what_cannot_be_honoured_is_refused_and_what_says_nothing_is_not():
    assert SAYS_MORE.keys() == REFUSED.keys()
    async with serving(SCRIPTED) as (_, client):
        for name, value in SAYS_MORE.items():
            with pytest.raises(openai.BadRequestError) as refused:
                await client.responses.create(model=MODEL, input="q", **{name: value})
            assert refused.value.param == name
            assert REFUSED[name][1] in refused.value.message
        harmless = {name: values[0] for name, (values, _) in REFUSED.items() if values}
        body = {**dict.fromkeys(IGNORED), "store": True, "include": ["reasoning.encrypted_content"], **harmless}
        reply = await client.responses.create(model=MODEL, input="q", extra_body=body, text={"verbosity": "low"})
        assert reply.output_text == "42"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"input": []}, "the input has no message"),
        ({"input": " "}, "has no text"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "need one of the user"),
        ({"input": [{"role": "robot", "content": "x"}]}, "cannot have the role 'robot'"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, "'function_call_output'"),
        ({"input": [{"type": "item_reference", "id": "1"}]}, "'item_reference'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "1"}]}]}, "'input_file'"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "got 'x'"),
        ({"input": [{"role": "user"}]}, "messages with content"),
        ({"input": "q", "text": {"format": {"type": "json_object"}}}, "answers are plain text"),
        ({"input": "q", "extra_body": {"dream": 1}}, "there is no field dream"),
        ({"input": "q", "reasoning": {"effort": "immense"}}, "reasoning_effort must be one of"),
    ],
)
async def test_an_input_that_cannot_be_taken_is_a_400_that_says_why(fields, why):
    async with serving(SCRIPTED) as (_, client):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=MODEL, **fields)
    assert why in refused.value.message


class Breaks:
    """A policy that takes a first step, and then fails for good."""

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        if not state.steps:
            return await ScriptedPolicy({(): ["a first step"]}).propose(state, n, max_steps)
        await asyncio.sleep(0.05)
        raise PolicyError("the model is gone")


class Judge:
    async def score(self, states):
        if states[0].steps[-1].text == "a first step":
            await asyncio.sleep(0.05)
        raise OSError("the judge is gone")


async def test_an_error_after_the_first_step_of_a_stream_is_a_failed_response():
    async with serving(model(Breaks(), Judge(), "beam")) as (_, client):
        events = [e async for e in await client.responses.create(model=MODEL, input="q", stream=True)]
    assert events[-1].type == "response.failed"
    error = events[-1].response.error
    assert (error.code, "is gone" in error.message) == ("server_error", True)


async def test_a_client_that_hangs_up_takes_its_search_along():
    held = Held()
    async with serving(model(held)) as (server, client):
        call = asyncio.ensure_future(client.responses.create(model=MODEL, input="q"))
        await server.until(lambda: held.running)
        call.cancel()
        await server.until(lambda: server.idle and not held.running)
