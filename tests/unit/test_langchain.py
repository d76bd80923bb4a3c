"""Any LangChain chat model as policy or critic: sampled anew, silent in streams, in one trace, paid for."""

import asyncio
import sys
from typing import Any
from uuid import UUID

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import START, MessagesState, StateGraph
from o1_reason_langchain import LangChainChat
from pydantic import Field

from o1_reason import Budget, PolicyError, create_reasoner, search
from o1_reason.chat import Sampling
from o1_reason.errors import ConfigurationError
from o1_reason.resolve import resolve_policy, resolve_verifier
from o1_reason.verifiers import Critic

ASK = [{"role": "user", "content": "Q"}]


class Model(BaseChatModel):
    """A chat model of LangChain's own kind that counts: each call gives another answer."""

    seed: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    reply: str = "Answer: {count}"
    metadata_of_reply: dict[str, Any] = Field(default_factory=dict)
    fail: int = 0  # so many calls fail first
    status: int | None = None
    seconds: float = 0.0
    seen: list[tuple[list[BaseMessage], dict[str, Any]]] = Field(default_factory=list)
    running: int = 0
    peak: int = 0

    @property
    def _llm_type(self) -> str:
        return "counting"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        raise AssertionError("a search awaits its models")

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any,
    ) -> ChatResult:  # fmt: skip
        self.seen.append((messages, {**kwargs, "stop": stop}))
        count = len(self.seen)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if count <= self.fail:
            error = RuntimeError("down")
            error.status_code = self.status  # type: ignore[attr-defined]
            raise error
        message = AIMessage(
            self.reply.format(count=count),
            usage_metadata={"input_tokens": 10, "output_tokens": 3, "total_tokens": 13},
            response_metadata=self.metadata_of_reply,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def model(**settings: Any) -> Model:
    return Model(**settings)


def seen_by(chat: LangChainChat) -> list[tuple[list[BaseMessage], dict[str, Any]]]:
    assert isinstance(chat.model, Model)
    return chat.model.seen


async def test_a_model_as_it_is_becomes_a_policy_and_a_critic():
    result = await search("Q", model(), None, "cot")
    assert result.answer == "1"
    assert (result.usage.calls, result.usage.tokens) == (1, 13)
    assert isinstance(resolve_verifier(model()), Critic)


async def test_the_response_cache_is_passed_by():
    set_llm_cache(InMemoryCache())
    try:
        replies, _ = await LangChainChat(model()).complete(ASK, Sampling(n=4))
    finally:
        set_llm_cache(None)
    assert len({reply.text for reply in replies}) == 4


async def test_the_model_gets_what_it_has_a_field_for_and_nothing_else():
    chat = LangChainChat(model())
    await chat.complete(ASK, Sampling(n=2, seed=7, temperature=0.5, max_tokens=9, stop=(";",), logprobs=True))
    assert sorted(options["seed"] for _, options in seen_by(chat)) == [7, 8]
    expected = {"temperature", "max_tokens", "seed", "stop"}
    assert all(
        {name for name, value in options.items() if value is not None} == expected for _, options in seen_by(chat)
    )


@pytest.mark.parametrize(
    ("metadata", "stop", "finish"),
    [
        ({"finish_reason": "stop"}, (), "end"),
        ({"finish_reason": "stop"}, (";",), "unknown"),
        ({"finish_reason": "length"}, (), "length"),
        ({"stop_reason": "max_tokens"}, (), "length"),
        ({"finish_reason": "content_filter"}, (), "filter"),
    ],
)
async def test_how_a_reply_ended_is_read_from_the_providers_word(metadata, stop, finish):
    chat = LangChainChat(model(metadata_of_reply=metadata))
    replies, _ = await chat.complete(ASK, Sampling(stop=stop))
    assert replies[0].finish == finish


async def test_log_probabilities_are_read():
    tops = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.0}]
    content = [{"token": "Yes", "logprob": -0.1, "top_logprobs": tops}, {"token": ";", "logprob": -9.0}]
    chat = LangChainChat(model(reply="Yes;", metadata_of_reply={"logprobs": {"content": content}}))
    replies, _ = await chat.complete(ASK, Sampling(stop=(";",), top_logprobs=2))
    assert (replies[0].text, replies[0].finish, replies[0].logprob) == ("Yes", "stop", -0.1)
    assert replies[0].top_logprobs == ({"Yes": -0.1, "No": -2.0},)


async def test_a_trailing_message_is_continued_and_its_echo_taken_off():
    chat = LangChainChat(model(reply="one\n\ntwo"), prefix="trailing")
    assert await chat.continues()
    replies, _ = await chat.complete(ASK, Sampling(stop=("\n\n",)), "one\n\n")
    assert replies[0].text == "two"
    messages, _ = seen_by(chat)[0]
    assert [message.type for message in messages] == ["human", "ai"]


async def test_calls_of_a_graph_stay_out_of_its_token_stream_and_in_its_trace():
    starts: dict[UUID, UUID | None] = {}
    models: list[tuple[UUID, list[str]]] = []

    class Tracer(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
            starts[run_id] = parent_run_id

        def on_chat_model_start(
            self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, tags: Any = None, **kwargs: Any
        ) -> None:
            starts[run_id] = parent_run_id
            models.append((run_id, tags))

    builder = StateGraph(MessagesState)
    builder.add_node("reason", create_reasoner(model(), strategy="self_consistency"))
    builder.add_edge(START, "reason")
    graph = builder.compile()
    config: Any = {"callbacks": [Tracer()]}
    chunks = [chunk async for chunk in graph.astream({"messages": [("user", "Q")]}, config, stream_mode="messages")]
    assert [chunk.text for chunk, _ in chunks if chunk.text] == ["1"], "the answer, and no candidate"
    roots = [run for run, parent in starts.items() if parent is None]
    assert len(roots) == 1
    assert len(models) == 16
    for run, tags in models:
        assert "nostream" in tags
        at: UUID | None = run
        while at is not None and starts[at] is not None:
            at = starts[at]
        assert at == roots[0]


async def test_of_several_calls_those_that_fail_are_left_out_and_all_are_counted():
    replies, usage = await LangChainChat(model(fail=2)).complete(ASK, Sampling(n=4))
    assert len(replies) == 2
    assert (usage.calls, usage.prompt_tokens) == (4, 20)


async def test_a_failure_is_a_policy_error_and_a_refusal_ends_the_search():
    with pytest.raises(PolicyError, match="down"):
        await search("Q", model(fail=99), None, "cot")
    with pytest.raises(ConfigurationError, match="refused"):
        await search("Q", model(fail=99, status=401), None, "cot")


async def test_calls_in_flight_are_limited():
    chat = LangChainChat(model(seconds=0.005), concurrency=2)
    await chat.complete(ASK, Sampling(n=7))
    assert isinstance(chat.model, Model)
    assert chat.model.peak == 2


async def test_cancelled_calls_stop_and_are_counted():
    tried = model(seconds=3600, temperature=0.1)  # a limit of its own: that of others may be narrower
    result = await search("Q", tried, None, "best_of_n", Budget(max_seconds=1.0))
    assert (result.stop, result.answer) == ("deadline", None)
    assert result.usage.calls == 16


def test_a_name_needs_langchain_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)  # as if it were not installed
    with pytest.raises(ConfigurationError, match="pip install langchain"):
        resolve_policy("langchain:openai:gpt-5-mini")


@pytest.mark.parametrize(
    ("name", "message"),
    [("langchain:x:y?as=judge", "as must be"), ("langchain:x:y?as", "NAME=VALUE")],
)
def test_names_that_cannot_work_are_refused(name, message):
    with pytest.raises(ConfigurationError, match=message):
        resolve_verifier(name)


@pytest.mark.parametrize("settings", [{"prefix": "guess"}, {"concurrency": 0}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError):
        LangChainChat(model(), **settings)
    with pytest.raises(ConfigurationError, match="BaseChatModel"):
        LangChainChat("gpt")  # type: ignore[arg-type]
