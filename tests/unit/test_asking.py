"""A person in the loop: when the graph pauses, what is shown, what may be answered, and what becomes of it."""

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier
from o1_reason_embedded.puzzle import parse, solves

from o1_reason import MCTS, Ask, Budget, ConfigurationError, create_reasoner, search
from o1_reason.budget import tranche

PUZZLE = "4 5 6 10"
ALWAYS = Ask(below=1.0)


class Counting(EmbeddedPolicy):
    """The embedded policy, and how often it was called."""

    calls = 0

    async def propose(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return await super().propose(*arguments, **options)


def reasoner(ask: Ask | None = ALWAYS, policy: Any = "embedded", **settings: Any) -> Any:
    settings = {"strategy": "best_of_n", "checkpointer": InMemorySaver()} | settings
    return create_reasoner(policy, "embedded", ask=ask, **settings)


def thread(name: str = "1") -> Any:
    return {"configurable": {"thread_id": name}}


def shown(output: Any) -> Any:
    return output["__interrupt__"][0].value


async def paused(graph: Any, config: Any) -> Any:
    return shown(await graph.ainvoke({"question": PUZZLE}, config))


async def test_a_doubtful_answer_is_shown_with_its_rivals_and_their_steps_before_it_goes_out() -> None:
    graph = reasoner()
    asked = await paused(graph, thread())
    assert asked["why"] == "confidence"
    assert asked["question"] == PUZZLE
    alone = await search(PUZZLE, "embedded", "embedded", "best_of_n")
    first, second, *_ = asked["candidates"]
    assert (first["answer"], first["confidence"]) == alone.ranking[0]
    assert (second["answer"], second["confidence"]) == alone.ranking[1]
    assert [step["text"] for step in first["steps"]] == alone.text.split("\n")
    assert asked["usage"] == alone.usage.to_data()


async def test_a_sure_answer_goes_out_unasked() -> None:
    output = await reasoner(Ask(below=0.5)).ainvoke({"question": PUZZLE}, thread())
    assert "__interrupt__" not in output
    assert output["confidence"] >= 0.5


async def test_go_on_gives_out_the_best_and_pays_for_nothing_again() -> None:
    policy = Counting()
    graph = reasoner(policy=policy)
    asked = await paused(graph, thread())
    calls = policy.calls
    output = await graph.ainvoke(Command(resume="go on"), thread())
    assert output["answer"] == asked["candidates"][0]["answer"]
    assert policy.calls == calls
    assert output["usage"]["calls"] == asked["usage"]["calls"]
    assert output["messages"][-1].text == output["answer"]


async def test_another_candidate_can_be_chosen() -> None:
    graph = reasoner()
    second = (await paused(graph, thread()))["candidates"][1]
    output = await graph.ainvoke(Command(resume={"choose": second["node"]}), thread())
    assert (output["answer"], output["confidence"]) == (second["answer"], second["confidence"])
    assert output["stop"] == "done"


@pytest.mark.parametrize(
    "answer",
    ["yes", {"choose": 99_999}, {"choose": 1}, {"edit": {"node": 0, "text": "x"}}, {"edit": 3}, {"a": 1, "b": 2},
     {"edit": {"node": 1, "text": ""}}, "stop"],
)  # fmt: skip
async def test_an_answer_that_makes_no_sense_is_asked_for_again_and_says_why(answer: Any) -> None:
    graph = reasoner()
    first = await paused(graph, thread())
    again = shown(await graph.ainvoke(Command(resume=answer), thread()))
    assert again["error"]
    assert {**again, "error": None} == {**first, "error": None}
    output = await graph.ainvoke(Command(resume="go on"), thread())
    assert output["answer"] == first["candidates"][0]["answer"]


async def test_an_edited_step_is_where_the_search_goes_on_and_its_cost_adds_up() -> None:
    graph = reasoner()
    asked = await paused(graph, thread())
    step = {"node": asked["candidates"][0]["steps"][0]["node"], "text": "10 - 6 = 4 (left: 4 4 5)"}
    again = shown(await graph.ainvoke(Command(resume={"edit": step}), thread()))
    for candidate in again["candidates"]:
        assert candidate["steps"][0] == {"node": None, "text": step["text"], "reward": None}
    assert again["usage"]["calls"] > asked["usage"]["calls"]
    output = await graph.ainvoke(Command(resume="go on"), thread())
    assert output["tree"]["prefix"][0]["text"] == step["text"]
    assert solves(parse(PUZZLE), output["answer"])
    assert output["usage"]["calls"] == again["usage"]["calls"]
    alone = await search(PUZZLE, "embedded", "embedded", "best_of_n", steps=[step["text"]])
    assert alone.tree.to_data()["nodes"] == output["tree"]["nodes"]


async def test_a_step_that_states_the_answer_ends_the_search_with_it() -> None:
    graph = reasoner()
    asked = await paused(graph, thread())
    last = asked["candidates"][0]["steps"][-1]
    edit = {
        "edit": {"node": last["node"], "text": last["text"].replace("= 24", "= 25").replace("left: 24", "left: 25")}
    }
    output = await graph.ainvoke(Command(resume=edit), thread())
    assert "__interrupt__" not in output
    assert output["answer"] == asked["candidates"][0]["answer"]
    assert output["messages"][-1].content[0]["reasoning"].endswith("(left: 25)")
    assert output["usage"]["calls"] == asked["usage"]["calls"]


async def test_spending_past_a_soft_limit_is_asked_for_each_time_and_never_done_unasked() -> None:
    soft = Budget(max_tokens=1500)
    graph = reasoner(Ask(soft=soft), strategy=MCTS(48))
    output = await graph.ainvoke({"question": PUZZLE}, thread())
    times = 0
    while "__interrupt__" in output:
        times += 1
        asked = shown(output)
        assert asked["why"] == "soft limit"
        assert asked["usage"]["prompt_tokens"] + asked["usage"]["completion_tokens"] <= 1500 * times
        output = await graph.ainvoke(Command(resume="go on"), thread())
    assert times >= 2
    whole = await search(PUZZLE, "embedded", "embedded", MCTS(48))
    assert output["usage"]["calls"] == whole.usage.calls
    assert output["stop"] == "done"


async def test_at_a_soft_limit_a_person_can_stop_with_the_best_so_far() -> None:
    graph = reasoner(Ask(soft=Budget(max_tokens=2500)), strategy=MCTS(64))
    asked = await paused(graph, thread())
    output = await graph.ainvoke(Command(resume="stop"), thread())
    assert output["answer"] == asked["candidates"][0]["answer"]
    assert output["stop"] == "budget"
    assert output["usage"]["calls"] == asked["usage"]["calls"]


async def test_the_budget_itself_is_no_question() -> None:
    graph = reasoner(Ask(soft=Budget(max_calls=10)), budget=Budget(max_calls=10), strategy=MCTS(64))
    output = await graph.ainvoke({"question": PUZZLE}, thread())
    assert "__interrupt__" not in output
    assert output["stop"] == "budget"


def test_a_tranche_grows_with_each_yes_and_never_beyond_the_budget() -> None:
    whole, soft = Budget(max_tokens=2500, max_seconds=60.0), Budget(max_tokens=1000, max_calls=7, max_seconds=5.0)
    limits = [(b.max_tokens, b.max_calls, b.max_seconds) for b in (tranche(whole, soft, k) for k in (1, 2, 3))]
    assert limits == [(1000, 7, 5.0), (2000, 14, 5.0), (2500, 21, 5.0)]
    assert tranche(whole, soft, 1).concurrency == whole.concurrency


async def test_a_pause_outlives_the_process_that_asked(tmp_path: Any) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "a.db")) as saver:
        asked = await paused(reasoner(checkpointer=saver), thread())
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "a.db")) as saver:
        second = asked["candidates"][1]
        graph = reasoner(checkpointer=saver)
        output = await graph.ainvoke(Command(resume={"choose": second["node"]}), thread())
    assert output["answer"] == second["answer"]


def test_it_works_without_await() -> None:
    graph = reasoner()
    asked = shown(graph.invoke({"question": PUZZLE}, thread()))
    output = graph.invoke(Command(resume={"choose": asked["candidates"][1]["node"]}), thread())
    assert output["answer"] == asked["candidates"][1]["answer"]


async def test_without_a_checkpointer_asking_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="checkpointer"):
        await reasoner(checkpointer=None).ainvoke({"question": PUZZLE})


async def test_inside_a_larger_graph_it_pauses_and_goes_on_too() -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("reason", create_reasoner("embedded", "embedded", strategy="best_of_n", ask=ALWAYS))
    builder.add_edge(START, "reason")
    graph = builder.compile(checkpointer=InMemorySaver())
    output = await graph.ainvoke({"messages": [("user", PUZZLE)]}, thread())
    asked = shown(output)
    step = {"node": asked["candidates"][0]["steps"][0]["node"], "text": "6 - 4 = 2 (left: 2 5 10)"}
    again = shown(await graph.ainvoke(Command(resume={"edit": step}), thread()))
    assert again["candidates"][0]["steps"][0]["text"] == step["text"]
    output = await graph.ainvoke(Command(resume="go on"), thread())
    assert output["messages"][-1].text == again["candidates"][0]["answer"]


# Time travel.


async def test_a_finished_search_is_forked_at_any_node_with_an_edited_step() -> None:
    graph = reasoner(None)
    first = await graph.ainvoke({"question": PUZZLE}, thread())
    node = first["tree"]["nodes"][1]
    edit = {"node": 1, "text": "10 - 6 = 4 (left: 4 4 5)"}
    fork = await graph.ainvoke({"edit": edit}, thread())
    assert node["parent"] == 0
    assert [step["text"] for step in fork["tree"]["prefix"]] == [edit["text"]]
    assert solves(parse(PUZZLE), fork["answer"])
    alone = await search(PUZZLE, "embedded", "embedded", "best_of_n", steps=[edit["text"]])
    assert fork["usage"]["calls"] == alone.usage.calls, "a fork counts what it costs itself"
    later = await graph.ainvoke({"question": "3 7 9 13"}, thread())
    assert "prefix" not in later["tree"], "the edit is not kept for the next question"


async def test_a_fork_without_a_text_goes_on_from_the_node_as_it_is_and_an_older_checkpoint_has_its_own_tree() -> None:
    graph = reasoner(None, strategy="beam")
    await graph.ainvoke({"question": PUZZLE}, thread())
    history = [state async for state in graph.aget_state_history(thread())]
    early = next(s for s in reversed(history) if any(record[0] == "grow" for record in s.values.get("log") or []))
    fork = await graph.ainvoke({"edit": {"node": 2}}, early.config)
    told = next(record for record in early.values["log"] if record[0] == "grow")
    assert fork["tree"]["prefix"][0]["text"] == told[2]["candidates"][1][0]["text"]
    with pytest.raises(ConfigurationError, match="from 1 to"):
        await graph.ainvoke({"edit": {"node": 500}}, early.config)


async def test_an_interrupted_fork_is_resumed_where_it_was() -> None:
    graph = reasoner(None, strategy=MCTS(24))
    await graph.ainvoke({"messages": [("user", PUZZLE)]}, thread())
    edit = {"edit": {"node": 1, "text": "10 - 6 = 4 (left: 4 4 5)"}}
    whole = await graph.ainvoke(edit, thread())
    await graph.ainvoke({"messages": [("user", PUZZLE)]}, thread("2"))
    async for chunk in graph.astream(edit, thread("2"), stream_mode="updates"):
        if "verify" in chunk:
            break
    output = await graph.ainvoke(None, thread("2"))
    assert [step["text"] for step in output["tree"]["prefix"]] == [edit["edit"]["text"]]
    assert output["answer"] == whole["answer"]


async def test_an_edit_where_there_was_no_search_says_so() -> None:
    with pytest.raises(ConfigurationError, match="ask a question first"):
        await reasoner(None).ainvoke({"edit": {"node": 1}}, thread())


async def test_steps_that_are_given_are_kept_and_scored_with_the_rest() -> None:
    result = await search(PUZZLE, "embedded", EmbeddedVerifier(), "beam", steps=["10 - 6 = 4 (left: 4 4 5)"])
    assert result.text.startswith("10 - 6 = 4 (left: 4 4 5)\n")
    assert result.node is not None
    assert len(result.tree.steps(result.node)) == 3
    with pytest.raises(ConfigurationError, match="nothing can follow"):
        finished = result.tree.steps(result.node)
        await search(PUZZLE, "embedded", steps=finished)


async def test_a_pause_leaves_nothing_running() -> None:
    graph = reasoner(Ask(soft=Budget(max_calls=6)), strategy=MCTS(64))
    before = asyncio.all_tasks()
    await paused(graph, thread())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
