"""`ChatReasoner`: what it says, streams, counts, traces and refuses, beyond LangChain's standard tests."""

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.base import AsyncBaseTracer
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from pydantic import Field as Bounded
from talker import Talker

from o1_reason import BestOfN, Budget, ChatReasoner, DepthFirst, PolicyError, Score, SelfConsistency, Step
from o1_reason.chat import Reply, Sampling
from o1_reason.chat_policy import ChatPolicy
from o1_reason.errors import ConfigurationError
from o1_reason.mdp import Proposals, Usage
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier
from o1_reason.turns import step_of, turn_of

PATHS = {(): ["think", "guess"], ("think",): ["= 42"], ("guess",): ["= 7"]}
WORTH = {"think": 0.9, "guess": 0.2, "= 42": 0.8, "= 7": 0.3}


def scripted(**settings: Any) -> ChatReasoner:
    given = {"policy": ScriptedPolicy(PATHS), "verifier": ScriptedVerifier(WORTH), "strategy": "beam"}
    return ChatReasoner(**{**given, **settings})


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


# What it says.


async def test_the_answer_is_the_text_the_chosen_path_the_reasoning_and_the_cost_all_of_the_search():
    message = await scripted().ainvoke("?")
    assert message.text == "42"
    assert message.content == [{"type": "reasoning", "reasoning": "think\n= 42"}, {"type": "text", "text": "42"}]
    told = message.response_metadata
    assert (told["confidence"], told["stop"], told["finish_reason"]) == (0.8, "done", "stop")
    assert (told["model_name"], told["model_provider"]) == ("reasoner/search", "o1_reason")
    assert told["usage"]["policy"]["calls"] == 3
    assert message.usage_metadata == {
        "input_tokens": 5, "output_tokens": 4, "total_tokens": 9, "output_token_details": {"reasoning": 4},
    }  # fmt: skip


async def test_it_answers_without_await_where_a_loop_runs_already():
    assert scripted().invoke("?").text == "42"
    assert [chunk.text for chunk in scripted().stream("?") if chunk.text] == ["42"]


async def test_a_policy_that_marks_no_answer_is_heard_all_the_same():
    message = await ChatReasoner(policy=Talker(), strategy="best_of_n").ainvoke("Good day")
    assert message.content == [{"type": "text", "text": "Hello to you who said: Good day"}]


async def test_no_answer_within_the_budget_is_said_and_not_raised():
    message = await scripted(budget=Budget(max_calls=0)).ainvoke("?")
    assert message.text == "No answer was found (budget)."
    assert message.response_metadata["finish_reason"] == "length"


async def test_the_model_is_shown_the_conversation_and_none_of_its_own_earlier_reasoning():
    talker = Talker()
    model = ChatReasoner(policy=talker, strategy="cot")
    earlier = await model.ainvoke("What is 1 + 2?")
    await model.ainvoke(
        [SystemMessage("Be brief."), HumanMessage("What is 1 + 2?"), earlier, HumanMessage("And 4 + 5?")]
    )
    shown = talker.seen[-1][0]
    assert [message.type for message in shown] == ["system", "human", "ai", "human"]
    assert str(shown[0].text).startswith("Be brief.")
    assert (shown[2].text, shown[3].text) == ("3", "And 4 + 5?")
    assert "I add them up" not in str(shown)


# How it streams.


async def test_every_step_is_a_block_that_chunks_build_up_and_the_answer_comes_last():
    chunks = [chunk async for chunk in scripted().astream("?")]
    whole = merged(chunks)
    *told, reasoning, answer = whole.content_blocks
    nodes = {block["extras"]["node"]: block for block in told if block["extras"]["event"] == "created"}
    assert sorted(nodes) == [1, 2, 3, 4]
    first = nodes[1]
    assert first["reasoning"] == "[1] think\n[1] scored 0.90\n"
    assert first["extras"] == {
        "event": "created", "node": 1, "parent": 0, "depth": 1, "terminal": False, "reward": 0.9,
    }  # fmt: skip
    assert (reasoning["reasoning"], answer["text"], whole.text) == ("think\n= 42", "42", "42")
    assert [block["index"] for block in whole.content_blocks] == list(range(len(whole.content_blocks)))
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert (
        whole.usage_metadata
        == (await scripted(strategy=DepthFirst(branch=2, threshold=0.1)).ainvoke("?")).usage_metadata
    )


async def test_steps_are_streamed_while_the_search_still_runs():
    policy = ScriptedPolicy({(): ["think"], ("think",): ["more"], ("think", "more"): ["= 42"]}, latency=0.05)
    loop = asyncio.get_running_loop()
    times = [loop.time() async for _ in ChatReasoner(policy=policy, strategy="beam").astream("?")]
    assert times[-1] - times[0] >= 0.09, "two more steps came after the first one was told"


async def test_turning_back_and_failing_are_told():
    policy = ScriptedPolicy(
        {(): ["good", "bad"], ("good",): RuntimeError("out of paper"), ("bad",): ["= 7"]},
    )
    verifier = ScriptedVerifier({"good": 0.9, "bad": 0.2}, default=0.3)
    model = ChatReasoner(policy=policy, verifier=verifier, strategy=DepthFirst(branch=2, threshold=0.0))
    blocks = merged([chunk async for chunk in model.astream("?")]).content_blocks
    extras = [block["extras"] for block in blocks if "extras" in block]
    assert {"event": "backtracked", "node": 2, "from": 1} in extras
    failed = next(extra for extra in extras if extra["event"] == "failed")
    assert failed["node"] == 1
    assert "out of paper" in failed["error"]


# How it ends.


class Endless:
    """Proposes a first step at once, and never another."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def propose(self, state: Any, n: int, max_steps: int = 1, *, temperature: Any = None) -> Proposals:
        if not state.steps:
            return Proposals(((Step("think"),),))
        self.events.append("begun")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        return Proposals(())


async def test_cancelling_it_cancels_its_calls():
    policy = Endless()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ChatReasoner(policy=policy).ainvoke("?")
    assert policy.events == ["begun", "cancelled"]


async def test_a_reader_that_leaves_the_stream_ends_the_search():
    policy = Endless()
    stream: Any = ChatReasoner(policy=policy).astream("?")
    await anext(stream)
    await asyncio.sleep(0.05)
    await stream.aclose()
    await asyncio.sleep(0.05)  # LangChain leaves the end of the inner generator to the event loop
    assert policy.events == ["begun", "cancelled"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_leaving_the_stream_of_a_synchronous_caller_ends_the_search():
    policy = Endless()
    stream: Any = ChatReasoner(policy=policy).stream("?")
    next(stream)
    stream.close()
    assert policy.events in ([], ["begun", "cancelled"])
    assert not [thread for thread in threading.enumerate() if thread.name == "o1-reason"]


async def test_failures_of_the_models_are_typed_errors_also_in_a_stream():
    with pytest.raises(PolicyError, match="down"):
        await ChatReasoner(policy=Talker(fail=99), strategy="cot").ainvoke("?")
    with pytest.raises(PolicyError, match="down"):
        _ = [chunk async for chunk in ChatReasoner(policy=Talker(fail=99), strategy="cot").astream("?")]
    with pytest.raises(ConfigurationError, match="human message"):
        scripted().invoke([SystemMessage("Be brief.")])


# In a trace.


class Trace(AsyncBaseTracer):
    """Runs by id, with the run that each belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.parents: dict[UUID, UUID | None] = {}
        self.tags: dict[str, list[str]] = {}
        self.ids: dict[str, list[UUID]] = {}

    async def _persist_run(self, run: Any) -> None:
        pass

    async def _on_run_create(self, run: Any) -> None:
        self.parents[run.id] = run.parent_run_id
        self.ids.setdefault(run.name, []).append(run.id)
        self.tags[run.name] = run.tags or []


def traced_app(model: ChatReasoner) -> Any:
    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph.compile()


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "astream in a graph", "astream", "tools"])
async def test_the_calls_inside_belong_to_its_run_and_stay_out_of_streams(way):
    trace, model = Trace(), ChatReasoner(policy=Talker(), strategy=SelfConsistency(n=3))
    config: Any = {"callbacks": [trace]}
    if way == "invoke":
        await asyncio.to_thread(model.invoke, "What is 1 + 2?", config)
    elif way == "tools":
        await model.bind_tools([add]).ainvoke("Please add 1 and 2", config)
    elif way == "ainvoke":
        await model.ainvoke("What is 1 + 2?", config)
    elif way == "astream":

        async def outer(question: str) -> str:
            return merged([chunk async for chunk in model.astream(question)]).text

        assert await RunnableLambda(outer).ainvoke("What is 1 + 2?", config) == "3"
    else:
        graph = traced_app(model)
        question: Any = {"messages": [("user", "What is 1 + 2?")]}
        chunks = [chunk async for chunk, _ in graph.astream(question, config, stream_mode="messages")]
        assert [chunk.text for chunk in chunks if chunk.text] == ["3"]
    (reasoner,) = trace.ids["ChatReasoner"]
    assert len(trace.ids["o1-reason call"]) >= 2
    assert {trace.parents[run] for run in trace.ids["o1-reason call"]} == {reasoner}
    assert "nostream" in trace.tags["o1-reason call"]


async def test_a_handler_that_counts_tokens_counts_them_once():
    counter = UsageMetadataCallbackHandler()
    message = await ChatReasoner(policy=Talker(), strategy="cot").ainvoke("What is 1 + 2?", {"callbacks": [counter]})
    assert counter.usage_metadata == {"reasoner/search": message.usage_metadata}


# What a call may change.


async def test_strategy_and_budget_can_be_configured_for_a_call_and_it_still_streams():
    talker = Talker()
    fields = {name: ConfigurableField(id=name) for name in ("strategy", "budget")}
    model: Any = ChatReasoner(policy=talker, strategy="cot").configurable_fields(**fields)
    await model.ainvoke("What is 1 + 2?")
    assert len(talker.seen) == 1
    other: Any = {"configurable": {"strategy": BestOfN(n=8), "budget": {"max_calls": 5}}}
    message = await model.ainvoke("What is 1 + 2?", other)
    assert message.response_metadata["usage"]["calls"] == 5
    assert len([chunk async for chunk in model.astream("What is 1 + 2?", other)]) > 1


async def test_options_of_one_call_hold_for_that_call_alone():
    talker = Talker()
    model = ChatReasoner(policy=talker, strategy="cot", temperature=0.5, max_tokens=100)
    await model.ainvoke("?", strategy=BestOfN(n=2), max_tokens=7)
    assert len(talker.seen) == 2
    assert {options["max_tokens"] for _, options in talker.seen} == {7}
    assert {options["temperature"] for _, options in talker.seen} == {0.5}
    await model.ainvoke("?", strategy=BestOfN(n=1))
    assert talker.seen[-1][1]["max_tokens"] == 100


async def test_a_temperature_reaches_a_policy_that_has_one_and_leaves_the_users_object_alone():
    @dataclass(frozen=True)
    class Warm:
        temperature: float = 1.0

        async def propose(self, state: Any, n: int, max_steps: int = 1, *, temperature: Any = None) -> Proposals:
            return Proposals(((Step("done", terminal=True, answer=str(self.temperature)),),))

    warm = Warm()
    assert (await ChatReasoner(policy=warm, temperature=0.25).ainvoke("?")).text == "0.25"
    assert warm.temperature == 1.0


async def test_another_policy_can_be_named_for_a_call(installed):
    class Adapter:
        @staticmethod
        def policy(name: str) -> ScriptedPolicy:
            return ScriptedPolicy({(): [f"= {name}"]})

    installed(other=Adapter)
    message = await scripted(verifier=None).ainvoke("?", model="other:hello")
    assert (message.text, message.response_metadata["model_name"]) == ("hello", "reasoner/other:hello")


async def test_the_answer_ends_before_a_stop_string():
    policy = ScriptedPolicy({(): [Step("= 4 apples and pears", terminal=True, answer="4 apples and pears")]})
    assert (await ChatReasoner(policy=policy, stop=[" and"]).ainvoke("?")).text == "4 apples"
    policy = ScriptedPolicy({(): [Step("= 4 apples and pears", terminal=True, answer="4 apples and pears")]})
    assert (await ChatReasoner(policy=policy).ainvoke("?", stop=[" pears"])).text == "4 apples and"


async def test_a_timeout_narrows_the_budget_and_a_failed_search_is_begun_again():
    slow = ChatReasoner(policy=Talker(seconds=3600), strategy="cot", timeout=0.05, budget=Budget(max_seconds=100))
    message = await slow.ainvoke("?")
    assert message.response_metadata["stop"] == "deadline"
    message = await ChatReasoner(policy=Talker(fail=2), strategy="cot", max_retries=2).ainvoke("What is 1 + 2?")
    assert message.text == "3"


async def test_answers_are_cached_by_all_that_they_depend_on():
    cache, talker = InMemoryCache(), Talker()
    for strategy in ("cot", "cot", BestOfN(n=1)):
        await ChatReasoner(policy=talker, strategy=strategy, cache=cache).ainvoke("What is 1 + 2?")
    assert len(talker.seen) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "nobody"}, "no adapter"),
        ({"stratgy": "beam"}, "stratgy"),
        ({"strategy": "bean"}, "unknown strategy"),
        ({"budget": {"max_call": 1}}, "budget"),
        ({"budget": {"max_calls": -1}}, "max_calls"),
        ({"model_name": "o1-mine"}, "begins with o1"),
        ({"policy": object()}, "propose"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        scripted(**settings)


async def test_an_option_that_nothing_would_read_is_refused():
    with pytest.raises(ConfigurationError, match="top_p"):
        await scripted().ainvoke("?", top_p=0.5)


# Tools.


def calls_of(message: AIMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in message.tool_calls]


async def test_calls_of_tools_are_candidates_and_the_majority_of_equal_ones_wins():
    talker = Talker(wrong=2)  # the first two candidates call with other arguments
    model = ChatReasoner(policy=talker, strategy=SelfConsistency(n=5)).bind_tools([add])
    message = await model.ainvoke("Please add 3 and 4")
    assert calls_of(message) == [("add", {"a": 3, "b": 4})]
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert message.response_metadata["confidence"] == pytest.approx(3 / 5)
    assert message.tool_calls[0]["id"] == "call_3", "as the model gave it"
    assert all(options["tools"][0]["function"]["name"] == "add" for _, options in talker.seen)


async def test_a_verifier_chooses_among_calls_before_any_tool_runs():
    class Likes:
        async def score(self, states: Any) -> list[Score]:
            return [Score((0.9 if '"a": 4' in state.steps[-1].text else 0.1,)) for state in states]

    model = ChatReasoner(policy=Talker(wrong=1), verifier=Likes(), strategy=BestOfN(n=3)).bind_tools([add])
    assert calls_of(await model.ainvoke("Please add 3 and 4")) == [("add", {"a": 4, "b": 5})]


def test_calls_are_equal_whatever_is_said_beside_them_and_an_unreadable_or_cut_turn_is_none():
    call = {"name": "add", "args": {"b": 4, "a": 3}, "type": "tool_call"}
    one, other = (
        step_of(AIMessage(text, tool_calls=[{**call, "id": text}]))  # type: ignore[list-item]
        for text in ("I add.", "")
    )
    assert one is not None
    assert other is not None
    assert one.key == other.key
    assert (one.text, other.text) == ('I add.\nadd({"a": 3, "b": 4})', 'add({"a": 3, "b": 4})')
    assert turn_of(one)[0] == "I add."
    assert turn_of(other)[1][0]["id"], "the model gave none"
    bad = {"name": "add", "args": "{", "id": "1", "error": "cut"}
    assert step_of(AIMessage("", invalid_tool_calls=[bad])) is None  # type: ignore[list-item]
    assert step_of(AIMessage("So it is", response_metadata={"finish_reason": "length"})) is None
    assert step_of(AIMessage(" ")) is None


async def test_streamed_calls_are_those_of_the_chosen_turn():
    model = ChatReasoner(policy=Talker(), strategy=SelfConsistency(n=3)).bind_tools([add])
    whole = merged([chunk async for chunk in model.astream("Please add 3 and 4")])  # type: ignore[misc]
    assert calls_of(whole) == [("add", {"a": 3, "b": 4})]
    assert [block["name"] for block in whole.content_blocks if block["type"] == "tool_call"] == ["add"]


async def test_the_model_sees_calls_and_their_results_where_they_happened():
    talker = Talker()
    model = ChatReasoner(policy=talker, strategy="cot").bind_tools([add])
    question = HumanMessage("Please add 3 and 4")
    turn = await model.ainvoke([question])
    told = ToolMessage("7", tool_call_id=turn.tool_calls[0]["id"])
    last = await model.ainvoke([question, turn, told], stop=["END"])
    assert last.text == "The tool says so.\n\nAnswer: 7"
    shown, options = talker.seen[-1]
    assert [message.type for message in shown] == ["human", "ai", "tool"]
    assert isinstance(shown[1], AIMessage)
    assert (shown[1].content, shown[1].tool_calls) == ("", turn.tool_calls)
    assert options["stop"] == ["END"]


async def test_an_agent_runs_on_it():
    agents = pytest.importorskip("langchain.agents", reason="pip install langchain")
    talker = Talker(wrong=1)
    agent = agents.create_agent(ChatReasoner(policy=talker, strategy=SelfConsistency(n=3)), [add])
    state = await agent.ainvoke({"messages": [("user", "Please add 3 and 4")]})
    assert state["messages"][-1].text == "The tool says so.\n\nAnswer: 7"


async def test_a_turn_known_to_the_ledger_is_not_paid_again(tmp_path):
    talker = Talker()
    for question in ("Please add 3 and 4", "Please add 3 and 4", "Please add 3 and 5"):
        model = ChatReasoner(policy=talker, strategy="cot", ledger=tmp_path / "calls.sqlite").bind_tools([add])
        message = await model.ainvoke(question)
    assert len(talker.seen) == 2
    assert calls_of(message) == [("add", {"a": 3, "b": 5})]


@pytest.mark.parametrize("policy", ["embedded", ScriptedPolicy(PATHS)])
def test_tools_are_refused_where_they_could_not_be_called(policy):
    with pytest.raises(ConfigurationError, match="LangChain chat model"):
        ChatReasoner(policy=policy).bind_tools([add])


def test_tools_are_refused_by_a_model_that_takes_none():
    class Plain(Talker):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match="takes no tools"):
        ChatReasoner(policy=Plain()).bind_tools([add])


# Structured output.


class Sum(BaseModel):
    """The sum of two numbers."""

    total: int = Bounded(ge=0)
    label: str


async def test_an_answer_that_fits_the_schema_is_taken_as_it_is():
    policy = ScriptedPolicy({(): [Step("done", terminal=True, answer='{"total": 7, "label": "x"}')]})
    model = ChatReasoner(policy=policy).with_structured_output(Sum)
    assert await model.ainvoke("?") == Sum(total=7, label="x")
    policy = ScriptedPolicy({(): [Step("done", terminal=True, answer='```json\n{"total": -1, "label": "x"}\n```')]})
    with pytest.raises(OutputParserException):
        await ChatReasoner(policy=policy).with_structured_output(Sum).ainvoke("?")


async def test_the_policys_own_model_writes_what_the_search_found():
    talker = Talker()
    model = ChatReasoner(policy=talker, strategy="cot").with_structured_output(Sum, include_raw=True)
    found = await model.ainvoke("What is 3 + 4?")
    assert isinstance(found["parsed"], Sum)
    shown, options = talker.seen[-1]
    assert options["tools"][0]["function"]["name"] == "Sum", "by the provider's own way"
    assert [message.type for message in shown] == ["human", "ai", "human"]
    assert "Answer: 7" in shown[1].text
    assert found["raw"].usage_metadata["total_tokens"] == 26
    assert found["raw"].response_metadata["usage"]["calls"] == 2


class Written:
    """A chat that answers 7, and then in the form that is asked for, or not."""

    identity = "written"

    def __init__(self, last: str) -> None:
        self.last = last
        self.asked: list[Sampling] = []

    async def complete(self, messages: Any, sampling: Any = Sampling(), prefix: Any = None) -> Any:
        self.asked.append(sampling)
        text = self.last if sampling.schema else "Answer: 7"
        return [Reply(text, "end", 5)] * min(1, sampling.n), Usage(1, 10, 5)

    async def continues(self) -> bool:
        return False

    def bound(self, messages: Any, sampling: Any, prefix: Any = None) -> Usage:
        return Usage(1, 10, 5)


async def test_a_model_that_is_not_langchains_is_given_the_schema():
    chat = Written(json.dumps({"total": 7, "label": "sum"}))
    model = ChatReasoner(policy=ChatPolicy(chat), strategy="cot").with_structured_output(Sum.model_json_schema())
    assert await model.ainvoke("?") == {"total": 7, "label": "sum"}
    schema = chat.asked[-1].schema
    assert schema is not None
    assert schema["required"] == ["total", "label"]


async def test_what_is_not_in_the_form_is_an_error_that_says_so():
    chat = Written("I would say seven.")
    with pytest.raises(PolicyError, match="did not keep to the schema"):
        await ChatReasoner(policy=ChatPolicy(chat), strategy="cot").with_structured_output(Sum).ainvoke("?")
    with pytest.raises(PolicyError, match="no chat model"):
        await scripted().with_structured_output(Sum).ainvoke("?")
    with pytest.raises(ConfigurationError, match="tools"):
        scripted().with_structured_output(Sum, tools=[add])


async def test_the_call_that_writes_the_answer_is_within_the_budget():
    chat = Written(json.dumps({"total": 7, "label": "sum"}))
    model: Any = ChatReasoner(policy=ChatPolicy(chat), strategy="cot").with_structured_output(Sum)
    assert await model.ainvoke("?", budget=Budget(max_calls=1)) == Sum(total=7, label="sum")
    assert [bool(sampling.schema) for sampling in chat.asked] == [True], "it was kept for the end"
    with pytest.raises(PolicyError, match="nothing of the budget"):
        await model.ainvoke("?", budget=Budget(max_tokens=20))
    assert len(chat.asked) == 2
