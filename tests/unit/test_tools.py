"""`reasoning_tool`: what the model reads, what the app gets, how it fails."""

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from talker import Talker

from o1_reason import BestOfN, Budget, PolicyError, SelfConsistency, reasoning_tool
from o1_reason.errors import ConfigurationError
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

ASK: Any = {"type": "tool_call", "id": "1", "name": "reason", "args": {"question": "What is 3 + 4?"}}


async def test_the_model_reads_the_answer_and_the_app_gets_the_reasoning():
    policy = ScriptedPolicy({(): ["= 42", "= 7"]}, repeat=True)
    reason = reasoning_tool(policy, ScriptedVerifier({"= 42": 0.8, "= 7": 0.3}), strategy=BestOfN(n=2))
    message = await reason.ainvoke(ASK)
    assert (message.content, message.status) == ("42 (confidence 0.80)", "success")
    artifact = message.artifact
    assert (artifact["answer"], artifact["confidence"], artifact["reasoning"]) == ("42", 0.8, "= 42")
    assert artifact["ranking"] == [["42", 0.8], ["7", 0.3]]
    assert (artifact["usage"]["policy"]["calls"], artifact["usage"]["verifier"]["calls"]) == (1, 1)
    assert list(reason.args) == ["question"]


async def test_it_works_without_await_where_a_loop_runs_already():
    assert reasoning_tool(Talker(), strategy="cot").invoke({"question": "What is 3 + 4?"}) == "7"


async def test_a_tool_node_runs_it_and_its_calls_stay_out_of_the_stream():
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([reasoning_tool(Talker(), strategy=SelfConsistency(n=3), name="think")]))
    builder.add_edge(START, "tools")
    asked: Any = {"messages": [AIMessage("", tool_calls=[{**ASK, "name": "think"}])]}
    chunks = [message async for message, _ in builder.compile().astream(asked, stream_mode="messages")]
    (told,) = chunks
    assert isinstance(told, ToolMessage)
    assert told.content == "7 (confidence 1.00)"
    assert told.artifact["stop"] == "done"


async def test_an_agent_calls_it():
    agents = pytest.importorskip("langchain.agents", reason="pip install langchain")
    agent = agents.create_agent(Talker(), [reasoning_tool("embedded", "embedded:prm+rules", name="puzzle")])
    state = await agent.ainvoke({"messages": [("user", "Solve the puzzle '4 5 6 10'")]})
    assert state["messages"][2].artifact["stop"] == "done"
    assert state["messages"][2].artifact["confidence"] > 0.5
    assert state["messages"][-1].text.startswith("The tool says so.")


async def test_a_question_it_cannot_take_comes_back_to_the_model():
    message = await reasoning_tool("embedded").ainvoke(ASK)
    assert message.status == "error"
    assert message.content.endswith("go on without this tool.")
    assert "arithmetic puzzles" in message.content


async def test_no_answer_is_said_with_what_to_do_next():
    message = await reasoning_tool(Talker(), budget=Budget(max_calls=0)).ainvoke(ASK)
    assert message.content.startswith("No answer was found (budget).")
    assert message.artifact["answer"] is None


async def test_models_that_failed_are_a_typed_error():
    with pytest.raises(PolicyError, match="down"):
        await reasoning_tool(Talker(fail=99), strategy="cot").ainvoke(ASK)


async def test_cancelling_it_cancels_its_calls():
    talker = Talker(seconds=3600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await reasoning_tool(talker, strategy=BestOfN(n=4)).ainvoke(ASK)
    assert len(talker.cancelled) == 4


def test_parts_that_cannot_work_are_refused_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="unknown strategy"):
        reasoning_tool("embedded", strategy="bean")

    class Nameless(ScriptedPolicy):
        identity = ""

        def __init__(self) -> None:
            super().__init__({}, identity="")

    with pytest.raises(ConfigurationError, match="identity"):
        reasoning_tool(Nameless(), ledger=tmp_path / "calls.sqlite")
