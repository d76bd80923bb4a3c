"""`ReasoningMiddleware`: when it searches, what it chooses, what it costs, and what it leaves alone."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelResponse, ModelRetryMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from openai_server import Server
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from o1_reason import BestOfN, Budget, ReasoningMiddleware, Score, SelfConsistency, State, Usage, VerifierError, search
from o1_reason.drawn import DrawnTurns
from o1_reason.errors import ConfigurationError
from o1_reason.receipt import seconds_left

Said = AIMessage | Exception


class Speaker(BaseChatModel):
    """Says what `script(messages, i)` says in its call number i; counts its tokens, and what it was asked with."""

    script: Callable[[list[Any], int], Said]
    seconds: Callable[[int], float] = lambda i: 0.0
    begun: list[float] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)
    cancelled: list[int] = Field(default_factory=list)
    spoken: list[int] = Field(default_factory=list)  # tokens of each message that was heard
    lock: Any = Field(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "speaker"

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

    def _begin(self, options: dict[str, Any]) -> int:
        with self.lock:
            self.options.append(options)
            self.begun.append(time.monotonic())
            return len(self.begun) - 1

    def _say(self, messages: list[Any], i: int) -> AIMessage:
        said = self.script(messages, i)
        if isinstance(said, Exception):
            raise said
        tokens = 10 + i  # other for each call, so that none can stand in for another
        self.spoken.append(5 + tokens)
        usage = {"input_tokens": 5, "output_tokens": tokens, "total_tokens": 5 + tokens}
        return said.model_copy(update={"usage_metadata": usage})

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        i = self._begin(kwargs)
        time.sleep(self.seconds(i))
        return ChatResult(generations=[ChatGeneration(message=self._say(messages, i))])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        i = self._begin(kwargs)
        try:
            await asyncio.sleep(self.seconds(i))
        except asyncio.CancelledError:
            self.cancelled.append(i)
            raise
        return ChatResult(generations=[ChatGeneration(message=self._say(messages, i))])


class Sampler(Speaker):
    """Has settings that a search may set."""

    temperature: float | None = None
    seed: int | None = None


class Chatterbox(Speaker):
    """Streams its texts word by word."""

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        message = (await self._agenerate(messages, **kwargs)).generations[0].message
        for word in str(message.text).split(" "):
            await asyncio.sleep(0)
            yield ChatGenerationChunk(message=AIMessageChunk(word + " "))
        yield ChatGenerationChunk(message=AIMessageChunk("", usage_metadata=message.usage_metadata))  # type: ignore[attr-defined]

    def _stream(self, *arguments: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        raise AssertionError("these tests stream with await")


class Judge:
    """Scores a turn by the first of `worth` that its text contains; `seen` has every state."""

    def __init__(self, worth: dict[str, float]) -> None:
        self.worth = worth
        self.seen: list[State] = []

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        self.seen += states
        return [
            Score((next((s for word, s in self.worth.items() if word in state.text), 0.1),), usage=Usage(1, 7, 2))
            for state in states
        ]


def calls(*numbers: int, text: str = "") -> AIMessage:
    """A turn that doubles `numbers`."""
    made = [{"name": "double", "args": {"n": n}, "id": f"id{n}-{text}", "type": "tool_call"} for n in numbers]
    return AIMessage(text, tool_calls=made)


class Doubling:
    """A tool that remembers when it ran, and with what."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.at: list[float] = []

        @tool
        def double(n: int) -> int:
            """Twice `n`."""
            self.ran.append(n)
            self.at.append(time.monotonic())
            return 2 * n

        self.tool = double


def first_turn(*said: Said, then: str = "Answer: done") -> Callable[[list[Any], int], Said]:
    """A script: one after the other for the first turn, round again at the end; then the same text for ever."""
    return lambda messages, i: AIMessage(then) if isinstance(messages[-1], ToolMessage) else said[i % len(said)]


def agent_of(model: BaseChatModel, *middleware: Any, **settings: Any) -> tuple[Any, Doubling]:
    doubling = Doubling()
    return create_agent(model, [doubling.tool], middleware=middleware, **settings), doubling


ASKED: Any = {"messages": [HumanMessage("Double something")]}


def told(message: AIMessage) -> dict[str, Any]:
    return message.response_metadata["o1_reason"]


# When it searches.


async def test_samples_that_agree_are_taken_and_nothing_more_is_called():
    model, judge = Speaker(script=first_turn(calls(4))), Judge({})
    agent, doubling = agent_of(model, ReasoningMiddleware(judge))
    state = await agent.ainvoke(ASKED)
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert len(model.begun) == 3 + 3
    assert judge.seen == []
    assert doubling.ran == [4]
    assert [(told(state["messages"][i])["agreement"], told(state["messages"][i])["searched"]) for i in (1, 3)] == [
        (1.0, False), (1.0, False),
    ]  # fmt: skip


async def test_samples_that_differ_start_a_search_of_which_they_are_the_first_candidates():
    said = [calls(n) for n in (1, 2, 1, 3, 4, 5, 6, 7)]
    model, judge = Speaker(script=first_turn(*said)), Judge({'{"n": 2}': 0.9})
    agent, doubling = agent_of(model, ReasoningMiddleware(judge))
    state = await agent.ainvoke(ASKED)
    assert len(model.begun) == 8 + 3, "three of the eight were drawn before the search"
    assert sorted(state.text for state in judge.seen) == [f'double({{"n": {n}}})' for n in range(1, 8)]
    assert doubling.ran == [2]
    first = told(state["messages"][1])
    assert (first["agreement"], first["searched"], first["stop"]) == (2 / 3, True, "done")


async def test_a_lower_bar_of_agreement_spares_the_search():
    model = Speaker(script=first_turn(calls(1), calls(2), calls(1)))
    agent, doubling = agent_of(model, ReasoningMiddleware(agreement=2 / 3))
    await agent.ainvoke(ASKED)
    assert len(model.begun) == 3 + 3
    assert doubling.ran == [1]


async def test_without_samples_it_always_searches():
    model, judge = Speaker(script=first_turn(calls(4))), Judge({})
    agent, _ = agent_of(model, ReasoningMiddleware(judge, strategy=BestOfN(4), samples=0))
    state = await agent.ainvoke(ASKED)
    assert len(model.begun) == 4 + 4
    assert told(state["messages"][1])["agreement"] is None


@pytest.mark.parametrize("settings", [{"samples": 1}, {"samples": -1}, {"agreement": 1.5}, {"strategy": "none such"}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        ReasoningMiddleware(**settings)


# What it chooses.


async def test_equal_calls_vote_together_whatever_is_said_with_them():
    said = [calls(1, text="one"), calls(2, text="a"), calls(1, text="two"), calls(2, text="b"), calls(2, text="c")]
    model = Speaker(script=first_turn(*said))
    agent, doubling = agent_of(model, ReasoningMiddleware(strategy=SelfConsistency(5)))
    state = await agent.ainvoke(ASKED)
    assert doubling.ran == [2]
    assert told(state["messages"][1])["confidence"] == 3 / 5
    assert state["messages"][1].text in ("a", "b", "c")


async def test_texts_with_equal_answers_agree():
    model = Speaker(script=lambda messages, i: AIMessage(f"{'So ' * i}\n\nAnswer: {('1/2', '0.5', '2/4')[i]}"))
    agent, _ = agent_of(model, ReasoningMiddleware())
    state = await agent.ainvoke(ASKED)
    assert len(model.begun) == 3
    assert told(state["messages"][1])["agreement"] == 1.0


async def test_no_tool_runs_before_the_choice_and_all_calls_of_the_chosen_turn_run():
    said = [calls(1), calls(2, 3), calls(4, 5, 6)]
    model = Speaker(script=first_turn(*said), seconds=lambda i: 0.01 * (i % 3))
    agent, doubling = agent_of(model, ReasoningMiddleware(Judge({'{"n": 3}': 0.9}), strategy=BestOfN(3)))
    state = await agent.ainvoke(ASKED)
    assert sorted(doubling.ran) == [2, 3]
    assert max(model.begun[:3]) < min(doubling.at)
    results = [message for message in state["messages"] if isinstance(message, ToolMessage)]
    assert {message.tool_call_id for message in results} == {"id2-", "id3-"}


async def test_the_chosen_message_is_the_models_own():
    thought = {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}}
    message = AIMessage([thought, {"type": "text", "text": "Hello"}], response_metadata={"model_name": "m"})
    agent, _ = agent_of(Speaker(script=lambda messages, i: message), ReasoningMiddleware())
    found = (await agent.ainvoke(ASKED))["messages"][1]
    assert found.content == message.content
    assert found.response_metadata["model_name"] == "m"


async def test_turns_that_were_cut_are_no_candidates_unless_there_is_nothing_else():
    cut = AIMessage("Answer: 1", response_metadata={"finish_reason": "length"})
    model = Speaker(script=lambda messages, i: [cut, AIMessage("Answer: 2"), cut, AIMessage("Answer: 3"), cut][i % 5])
    agent, _ = agent_of(model, ReasoningMiddleware(strategy=BestOfN(5, vote="weighted"), verifier=Judge({"3": 1.0})))
    assert (await agent.ainvoke(ASKED))["messages"][1].text == "Answer: 3"
    only = Speaker(script=lambda messages, i: cut)
    agent, _ = agent_of(only, ReasoningMiddleware(strategy=BestOfN(4)))
    state = await agent.ainvoke(ASKED)
    assert (state["messages"][1].text, len(only.begun)) == ("Answer: 1", 4)
    assert state["reasoning_usage"]["calls"] == 4


async def test_the_verifier_sees_the_last_question_and_the_conversation_around_it():
    def script(messages: list[Any], i: int) -> Said:
        return calls(i) if not isinstance(messages[-1], ToolMessage) else AIMessage(f"Answer: {i}")

    judge = Judge({})
    agent, _ = agent_of(Speaker(script=script), ReasoningMiddleware(judge), system_prompt="Be brief.")
    before = [HumanMessage("Hello"), AIMessage("Hi")]
    await agent.ainvoke({"messages": [*before, HumanMessage("Double something")]})
    first, last = judge.seen[0], judge.seen[-1]
    assert first.question == last.question == "Double something"
    assert [m["role"] for m in first.context] == ["system", "user", "assistant"]
    assert [m["role"] for m in last.context] == ["system", "user", "assistant", "assistant", "tool"]


async def test_a_conversation_without_words_of_a_human_is_no_hindrance():
    agent, _ = agent_of(Speaker(script=lambda messages, i: AIMessage(f"Answer: {i}")), ReasoningMiddleware(Judge({})))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    for start in (AIMessage("You there?"), HumanMessage(content=[picture])):
        assert "Answer" in (await agent.ainvoke({"messages": [start]}))["messages"][-1].text


# What it costs.


async def test_usage_is_what_the_model_counted_over_all_candidates_and_the_verifier():
    model, judge = Speaker(script=first_turn(*(calls(n) for n in range(8)))), Judge({})
    agent, _ = agent_of(model, ReasoningMiddleware(judge))
    counting = UsageMetadataCallbackHandler()
    state = await agent.ainvoke(ASKED, {"callbacks": [counting]})
    messages = [message for message in state["messages"] if isinstance(message, AIMessage)]
    verifier = 9 * len(judge.seen)
    assert len(judge.seen) == 8
    assert sum(m.usage_metadata["total_tokens"] for m in messages) == sum(model.spoken) + verifier
    usage = state["reasoning_usage"]
    assert usage["calls"] == len(model.begun) + 8
    assert usage["prompt_tokens"] + usage["completion_tokens"] == sum(model.spoken) + verifier
    assert told(messages[0])["usage"]["verifier"]["calls"] == 8
    assert told(messages[0])["usage"]["policy"]["completion_tokens"] == sum(model.spoken[:8]) - 8 * 5


async def test_a_run_budget_lets_it_step_aside_and_a_new_run_has_it_again():
    model = Speaker(script=first_turn(calls(4)))
    agent, _ = agent_of(model, ReasoningMiddleware(run_budget=Budget(max_calls=3)), checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t"}}
    state = await agent.ainvoke(ASKED, thread)
    assert len(model.begun) == 3 + 1
    assert told(state["messages"][3])["stop"] == "budget"
    state = await agent.ainvoke(ASKED, thread)
    assert len(model.begun) == 2 * (3 + 1)
    assert state["reasoning_usage"]["calls"] == 8, "the thread's total goes on"
    assert "reasoning_run" not in state


async def test_a_run_budget_narrows_the_last_search_it_allows():
    model = Speaker(script=first_turn(*(calls(n) for n in range(8))))
    agent, _ = agent_of(model, ReasoningMiddleware(run_budget=Budget(max_calls=5)))
    state = await agent.ainvoke(ASKED)
    assert len(model.begun) == 5 + 1
    assert told(state["messages"][1])["stop"] == "budget"


async def test_a_run_budget_counts_all_turns_of_the_run():
    def script(messages: list[Any], i: int) -> Said:
        results = sum(isinstance(message, ToolMessage) for message in messages)
        return calls(results) if results < 3 else AIMessage("Answer: done")

    model = Speaker(script=script)
    agent, _ = agent_of(model, ReasoningMiddleware(run_budget=Budget(max_calls=6)))
    state = await agent.ainvoke(ASKED)
    assert [told(m)["usage"]["calls"] for m in state["messages"] if m.type == "ai"] == [3, 3, 1, 1]


async def test_dollars_that_a_verifier_has_spent_count_for_the_run():
    class Dear(Judge):
        async def score(self, states: Sequence[State]) -> Sequence[Score]:
            return [Score((0.5,), usage=Usage(1, 7, 2, 0.01)) for _ in states]

    model = Speaker(script=lambda messages, i: first_turn(*map(calls, range(8)), then=f"Answer: {i}")(messages, i))
    agent, _ = agent_of(model, ReasoningMiddleware(Dear({}), run_budget=Budget(max_usd=0.08)))
    state = await agent.ainvoke(ASKED)
    assert state["reasoning_usage"]["cost_usd"] == pytest.approx(0.08)
    assert len(model.begun) == 8 + 1


async def test_the_search_has_the_time_that_the_agreement_check_has_left():
    left: list[float | None] = []

    def script(messages: list[Any], i: int) -> Said:
        left.append(seconds_left())
        return AIMessage(f"Answer: {i}")

    model = Speaker(script=script, seconds=lambda i: 0.3 if i < 3 else 0.0)
    agent, _ = agent_of(model, ReasoningMiddleware(strategy=BestOfN(4), budget=Budget(max_seconds=20.0)))
    await agent.ainvoke(ASKED)
    assert left[3] is not None
    assert left[3] <= 19.7


async def test_turns_are_given_out_again_at_the_price_that_was_paid_for_them():
    class Unfit(Exception):  # noqa: N818 - as LangChain's StructuredOutputError
        ai_message = AIMessage("x", usage_metadata={"input_tokens": 5, "output_tokens": 2, "total_tokens": 7})

    async def ask(options: dict[str, Any]) -> Any:
        asked.append(options)
        if len(asked) == 2:
            raise Unfit
        return ModelResponse(result=[Unfit.ai_message.model_copy(update={"content": f"Answer: {len(asked)}"})])

    asked: list[Any] = []
    turns = DrawnTurns(ask, None, ())
    first = await search("?", turns, None, BestOfN(3))
    turns.rewind()
    again = await search("?", turns, None, BestOfN(3))
    assert len(asked) == 3
    assert first.policy_usage == again.policy_usage == Usage(3, 15, 6)


@pytest.mark.parametrize("budget", [Budget(max_calls=0), Budget(max_seconds=0.0)])
async def test_a_budget_of_nothing_means_plain_calls(budget: Budget):
    model = Speaker(script=first_turn(calls(4)))
    agent, doubling = agent_of(model, ReasoningMiddleware(budget=budget))
    state = await agent.ainvoke(ASKED)
    assert (len(model.begun), doubling.ran) == (2, [4])
    assert state["reasoning_usage"]["calls"] == 2


async def test_a_deadline_takes_what_has_come_and_cancels_the_rest():
    model = Speaker(script=first_turn(calls(1), calls(2), calls(3)), seconds=lambda i: 30.0 if i in (0, 2) else 0.0)
    agent, doubling = agent_of(model, ReasoningMiddleware(budget=Budget(max_seconds=0.3)))
    await agent.ainvoke(ASKED)
    assert doubling.ran == [2]
    assert sorted(model.cancelled) == [0, 2]


async def test_a_deadline_before_anything_came_ends_in_a_plain_call():
    model = Speaker(script=first_turn(calls(1)), seconds=lambda i: 30.0 if i < 3 else 0.0)
    agent, doubling = agent_of(model, ReasoningMiddleware(budget=Budget(max_seconds=0.2)))
    state = await agent.ainvoke(ASKED)
    assert doubling.ran == [1]
    assert told(state["messages"][1])["usage"]["calls"] == 4, "three were cancelled"


# How it streams.


def words(messages: Any, i: int) -> Said:
    return AIMessage(f"call {i} speaks these words\n\nAnswer: {i % 2}")


async def streamed(agent: Any, mode: Any) -> list[Any]:
    return [chunk async for chunk in agent.astream(ASKED, stream_mode=mode)]


async def test_tokens_of_candidates_do_not_reach_the_stream_and_the_chosen_message_does_whole():
    agent, _ = agent_of(Chatterbox(script=words), ReasoningMiddleware())
    chunks = [message for message, _ in await streamed(agent, "messages")]
    assert len(chunks) == 1
    assert "speaks these words" in chunks[0].text
    plain, _ = agent_of(Chatterbox(script=words))
    assert len(await streamed(plain, "messages")) > 5, "the model does stream"


async def test_a_plain_call_streams_as_ever():
    agent, _ = agent_of(Chatterbox(script=words), ReasoningMiddleware(run_budget=Budget(max_calls=0)))
    assert len(await streamed(agent, "messages")) > 5


async def test_an_event_tells_the_candidates_their_votes_and_scores_and_the_cost():
    said = [calls(1), calls(2), calls(2)]
    agent, _ = agent_of(Speaker(script=first_turn(*said)), ReasoningMiddleware(Judge({"2": 0.9}), strategy=BestOfN(3)))
    first, _ = await streamed(agent, "custom")
    assert first["event"] == "turn"
    assert sorted(first["candidates"], key=lambda c: c["turn"]) == [
        {"turn": 'double({"n": 1})', "votes": 1, "score": 0.1, "chosen": False},
        {"turn": 'double({"n": 2})', "votes": 2, "score": 0.9, "chosen": True},
    ]
    assert first["usage"]["policy"]["calls"] == 3


# Among others.


class Watching(AgentMiddleware):
    """Remembers the calls that go through it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        self.calls.append(request.model_settings)
        return await handler(request)


class Inner(Watching):
    pass


async def test_middlewares_further_down_the_list_see_every_candidate_and_those_above_one_turn():
    outer, inner = Watching(), Inner()
    model = Speaker(script=first_turn(calls(1), calls(2), calls(3)))
    agent, _ = agent_of(model, outer, ReasoningMiddleware(strategy=BestOfN(4)), inner)
    await agent.ainvoke(ASKED)
    assert len(outer.calls) == 2
    assert len(inner.calls) == len(model.begun) == 4 + 3


async def test_candidates_are_drawn_with_seeds_of_their_own_and_the_temperature_of_the_strategy():
    model = Sampler(script=first_turn(*(calls(n) for n in range(4))))
    strategy = BestOfN(4, temperature=0.3)
    agent, _ = agent_of(model, ReasoningMiddleware(strategy=strategy, temperature=0.9))
    await agent.ainvoke(ASKED)
    assert len({options["seed"] for options in model.options}) == 4 + 3
    assert [options["temperature"] for options in model.options] == [0.9] * 3 + [0.3] + [0.9] * 3


async def test_a_response_cache_does_not_make_candidates_equal():
    model = Speaker(script=first_turn(*(calls(n) for n in range(6))))
    set_llm_cache(InMemoryCache())
    try:
        agent, _ = agent_of(model, ReasoningMiddleware(strategy=BestOfN(6)))
        await agent.ainvoke(ASKED)
    finally:
        set_llm_cache(None)
    assert len(model.begun) == 6 + 3


async def test_a_turn_of_which_every_call_failed_raises_what_the_model_raised():
    agent, _ = agent_of(Speaker(script=lambda messages, i: TimeoutError(f"down {i}")), ReasoningMiddleware())
    with pytest.raises(TimeoutError, match="down 0"):
        await agent.ainvoke(ASKED)


async def test_retries_around_it_see_that_error_and_begin_again():
    model = Speaker(script=lambda messages, i: TimeoutError("down") if i < 3 else AIMessage("up"))
    retry = ModelRetryMiddleware(retry_on=(TimeoutError,), initial_delay=0.0, jitter=False)
    agent, _ = agent_of(model, retry, ReasoningMiddleware())
    assert (await agent.ainvoke(ASKED))["messages"][-1].text == "up"
    assert len(model.begun) == 3 + 3


async def test_single_calls_may_fail_and_count_as_disagreement():
    model = Speaker(script=lambda messages, i: TimeoutError("down") if i == 1 else AIMessage("up"))
    agent, _ = agent_of(model, ReasoningMiddleware(strategy=BestOfN(5)))
    state = await agent.ainvoke(ASKED)
    assert state["messages"][-1].text == "up"
    assert len(model.begun) == 5
    assert told(state["messages"][-1])["agreement"] == 2 / 3


async def test_a_verifier_that_fails_is_an_error_of_its_own_kind():
    class Broken:
        async def score(self, states: Any) -> Any:
            raise RuntimeError("no judge today")

    agent, doubling = agent_of(Speaker(script=first_turn(calls(1), calls(2))), ReasoningMiddleware(Broken()))
    with pytest.raises(VerifierError, match="no judge today"):
        await agent.ainvoke(ASKED)
    assert doubling.ran == []


async def test_an_interrupt_of_a_middleware_below_reaches_the_person_once_for_each_candidate():
    class Asking(AgentMiddleware):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return AIMessage(f"You said {interrupt('May I?')}")

    agent, _ = agent_of(Speaker(script=words), ReasoningMiddleware(), Asking(), checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t"}}
    state = await agent.ainvoke(ASKED, thread)
    for _ in range(3):
        assert state["__interrupt__"][0].value == "May I?"
        state = await agent.ainvoke(Command(resume="yes"), thread)
    assert state["messages"][-1].text == "You said yes"


async def test_cancelling_the_agent_leaves_nothing_running():
    model = Speaker(script=words, seconds=lambda i: 30.0)
    agent, _ = agent_of(model, ReasoningMiddleware())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await agent.ainvoke(ASKED)
    assert sorted(model.cancelled) == [0, 1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_real_client_counts_as_its_server_does_and_hangs_up_when_cancelled():
    from langchain_openai import ChatOpenAI

    async def answer(request: Any) -> None:
        if request.body["messages"][-1]["role"] == "tool":
            await asyncio.sleep(30)
        n = server.requests.index(request) % 2
        function = {"name": "double", "arguments": json.dumps({"n": n})}
        message = {"role": "assistant", "tool_calls": [{"id": f"c{n}", "type": "function", "function": function}]}
        usage = {"prompt_tokens": 10, "completion_tokens": 3 + n, "total_tokens": 13 + n}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        await request.reply(200, {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})

    async with Server(answer) as server:
        model = ChatOpenAI(model="m", base_url=server.url, api_key="none", seed=1)  # type: ignore[arg-type]
        agent, doubling = agent_of(model, ReasoningMiddleware(strategy=BestOfN(6, vote="weighted")))
        messages: list[Any] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                async for update in agent.astream(ASKED, stream_mode="updates"):
                    messages += next(iter(update.values()))["messages"]
        async with asyncio.timeout(2):
            while server.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert messages[0].usage_metadata["total_tokens"] == 6 * 13 + 3
    assert len({request.body["seed"] for request in server.requests}) == len(server.requests) == 6 + 3
    assert server.gone == 3
    assert len(doubling.ran) == 1


# Without await.


def test_it_works_without_await_and_counts_the_same():
    said = [calls(n) for n in (1, 2, 1, 3, 4, 5, 6, 7)]
    model, judge = Speaker(script=first_turn(*said)), Judge({'{"n": 2}': 0.9})
    agent, doubling = agent_of(model, ReasoningMiddleware(judge))
    state = agent.invoke(ASKED)
    assert (len(model.begun), doubling.ran) == (8 + 3, [2])
    usage = state["reasoning_usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == sum(model.spoken) + 9 * len(judge.seen)


def test_calls_that_a_deadline_leaves_behind_on_threads_are_waited_for_and_counted():
    model = Speaker(script=lambda messages, i: AIMessage("Answer: 1"), seconds=lambda i: 0.3 if i == 0 else 0.0)
    strategy = SelfConsistency(3)
    agent, _ = agent_of(model, ReasoningMiddleware(strategy=strategy, samples=0, budget=Budget(max_seconds=0.1)))
    state = agent.invoke(ASKED)
    assert state["reasoning_usage"]["completion_tokens"] == sum(model.spoken) - 5 * len(model.spoken)
    assert len(model.spoken) == len(model.begun) == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("o1-reason-turn")]


def test_failures_without_await_are_the_models_own():
    agent, _ = agent_of(Speaker(script=lambda messages, i: TimeoutError("down")), ReasoningMiddleware())
    with pytest.raises(TimeoutError, match="down"):
        agent.invoke(ASKED)


# Structured output.


class Doubled(BaseModel):
    """The result."""

    value: int


def structured(messages: list[Any], i: int) -> Said:
    value = ["four", 4, 5, 5, "five", 5, 4, 5][i]
    return AIMessage("", tool_calls=[{"name": "Doubled", "args": {"value": value}, "id": str(i), "type": "tool_call"}])


async def test_structured_output_survives_and_what_does_not_fit_is_no_candidate():
    model = Speaker(script=structured)
    agent, _ = agent_of(model, ReasoningMiddleware(), response_format=ToolStrategy(Doubled))
    state = await agent.ainvoke(ASKED)
    assert state["structured_response"] == Doubled(value=5)
    assert len(model.begun) == 8
    assert told(state["messages"][1])["confidence"] == 4 / 6
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool"]


async def test_structured_output_of_the_providers_own_is_counted_even_where_it_does_not_parse():
    model = Speaker(script=lambda messages, i: AIMessage(["no JSON", '{"value": 3}', '{"value": 3}'][i]))
    agent, _ = agent_of(
        model, ReasoningMiddleware(agreement=0.6), response_format=ProviderStrategy(Doubled)
    )  # fmt: skip
    state = await agent.ainvoke(ASKED)
    assert state["structured_response"] == Doubled(value=3)
    assert state["messages"][-1].usage_metadata["total_tokens"] == sum(model.spoken)


async def test_a_turn_without_any_fitting_output_goes_back_to_the_model():
    def script(messages: list[Any], i: int) -> Said:
        return structured(messages, 1 if isinstance(messages[-1], ToolMessage) else 0)

    model = Speaker(script=script)
    agent, _ = agent_of(model, ReasoningMiddleware(strategy=BestOfN(4)), response_format=ToolStrategy(Doubled))
    state = await agent.ainvoke(ASKED)
    assert state["structured_response"] == Doubled(value=4)
    assert len(model.begun) == 4 + 3


# What one call may choose.


class Context(TypedDict):
    reasoner: dict[str, Any]


async def test_a_call_of_the_agent_may_choose_strategy_budget_and_seed():
    model = Speaker(script=first_turn(*(calls(n) for n in range(8))))
    agent, _ = agent_of(model, ReasoningMiddleware(), context_schema=Context)
    chosen = {"strategy": "best_of_n", "options": {"n": 4}, "budget": {"max_calls": 100}, "seed": 3}
    await agent.ainvoke(ASKED, context={"reasoner": chosen})
    assert len(model.begun) == 4 + 3
    await agent.ainvoke(ASKED, context={"reasoner": {"budget": {"max_calls": 0}}})
    assert len(model.begun) == 4 + 3 + 2


async def test_a_call_of_the_agent_cannot_choose_models_or_more_than_the_budget():
    model = Speaker(script=first_turn(*(calls(n) for n in range(8))))
    agent, _ = agent_of(model, ReasoningMiddleware(budget=Budget(max_calls=2)), context_schema=Context)
    with pytest.raises(ConfigurationError, match="verifier"):
        await agent.ainvoke(ASKED, context={"reasoner": {"verifier": "embedded"}})
    await agent.ainvoke(ASKED, context={"reasoner": {"budget": {"max_calls": 100}}})
    assert len(model.begun) == 2 + 2


# Where LangChain is missing.


def test_without_langchain_it_says_what_to_install():
    code = (
        "import sys; sys.modules['langchain'] = None\n"
        "try:\n    from o1_reason import ReasoningMiddleware\n"
        "except ValueError as error:\n    print(type(error).__name__, error)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.strip() == "ConfigurationError ReasoningMiddleware needs LangChain: pip install 'o1-reason[agents]'"
