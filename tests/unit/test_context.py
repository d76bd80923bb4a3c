"""What one call of a reasoner may choose, alone and inside a larger graph, trusted and guarded."""

from dataclasses import dataclass
from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from o1_reason_embedded import RuleVerifier

from o1_reason import BestOfN, Budget, ConfigurationError, ReasonerContext, create_reasoner, search

PUZZLE = {"question": "4 5 6 10"}


def reasoner(**settings: Any) -> Any:
    return create_reasoner("embedded", "embedded", **settings)


async def test_strategy_models_budget_and_seed_of_one_call() -> None:
    graph = reasoner()
    context: ReasonerContext = {
        "verifier": RuleVerifier(), "strategy": "best_of_n", "options": {"n": 5}, "budget": {"max_nodes": 9}, "seed": 3,
    }  # fmt: skip
    output = await graph.ainvoke(PUZZLE, context=context)
    alone = await search(
        PUZZLE["question"], "embedded", RuleVerifier(), BestOfN(5), Budget(max_nodes=9), seed=3
    )  # fmt: skip
    assert output["tree"] == alone.tree.to_data()
    usual = await graph.ainvoke(PUZZLE)
    assert usual["tree"] == (await search(PUZZLE["question"], "embedded", "embedded")).tree.to_data()


def test_without_await_and_with_a_whole_budget() -> None:
    output = reasoner().invoke(PUZZLE, context={"budget": Budget(max_calls=3), "strategy": BestOfN(2)})
    assert output["usage"]["calls"] <= 3
    assert len(output["tree"]["nodes"]) <= 7


@pytest.mark.parametrize(
    ("context", "why"),
    [({"stratgy": "beam"}, "stratgy"), ({"strategy": "bean"}, "bean"), ({"budget": {"max_token": 3}}, "max_token"),
     ({"options": {"breadth": 3}}, "breadth"), ({"policy": 3}, "policy"), ([1], "mapping")],
)  # fmt: skip
async def test_a_choice_that_cannot_be_is_told(context: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        await reasoner().ainvoke(PUZZLE, context=context)


@pytest.mark.parametrize("kind", ["mapping", "dataclass"])
async def test_in_a_larger_graph_the_field_reasoner_is_meant_and_nothing_else(kind: str) -> None:
    @dataclass
    class Context:
        strategy: str  # the larger graph's own business
        reasoner: ReasonerContext | None = None

    builder = StateGraph(MessagesState, context_schema=Context if kind == "dataclass" else dict)
    builder.add_node("reason", reasoner())
    builder.add_edge(START, "reason")
    graph: Any = builder.compile()
    seen: dict[str, int] = {}
    for name, chosen in {"few": {"strategy": "best_of_n", "options": {"n": 2}}, "usual": None}.items():
        fields = {"strategy": "of sales", "reasoner": chosen}
        context = Context(**fields) if kind == "dataclass" else fields  # type: ignore[arg-type]
        output = await graph.ainvoke({"messages": [("user", "4 5 6 10")]}, context=context)
        seen[name] = output["messages"][-1].usage_metadata["total_tokens"]
    whole = await search("4 5 6 10", "embedded", "embedded")
    few = await search("4 5 6 10", "embedded", "embedded", BestOfN(2))
    assert seen == {"few": few.usage.tokens, "usual": whole.usage.tokens}


async def test_a_node_that_calls_the_reasoner_hands_it_its_context() -> None:
    inner = reasoner()

    async def think(state: MessagesState) -> Any:
        output = await inner.ainvoke({"messages": state["messages"]}, context={"strategy": "cot"})
        return {"messages": output["messages"][-1:]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.add_edge(START, "think")
    output = await builder.compile().ainvoke({"messages": [("user", "4 5 6 10")]})  # type: ignore[arg-type]
    alone = await search("4 5 6 10", "embedded", "embedded", "cot")
    assert output["messages"][-1].usage_metadata["total_tokens"] == alone.usage.tokens


@pytest.mark.parametrize(
    ("context", "why"),
    [({"policy": "openai:x?base_url=http://127.0.0.1:9"}, "policy"), ({"verifier": "embedded"}, "verifier"),
     ({"options": {"width": 100_000}}, "at most"), ({"strategy": "nope"}, "nope")],
)  # fmt: skip
async def test_guarded_a_call_can_name_no_model_and_ask_for_no_more_than_there_is(context: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        await reasoner(guarded=True).ainvoke(PUZZLE, context=context)


async def test_guarded_a_call_can_lower_the_budget_and_never_raise_it() -> None:
    graph = reasoner(guarded=True, budget=Budget(max_calls=6, max_nodes=64))
    more = await graph.ainvoke(PUZZLE, context={"budget": {"max_calls": 500}, "strategy": "mcts"})
    less = await graph.ainvoke(PUZZLE, context={"budget": {"max_calls": 2}, "strategy": "mcts"})
    assert more["usage"]["calls"] == 6
    assert less["usage"]["calls"] <= 2


def test_the_schema_of_the_context_tells_what_can_be_chosen() -> None:
    schema = reasoner().get_context_jsonschema()
    assert set(schema["properties"]) == {"policy", "verifier", "strategy", "options", "budget", "seed"}
