"""The reasoner as a node of your own graph: your state, your keys, one more node."""

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from o1_reason import Budget, create_reasoner


class State(MessagesState):
    confidence: float
    checked: bool


async def check(state: State) -> dict[str, bool]:
    return {"checked": state["confidence"] > 0.5}


reasoner = create_reasoner(
    "embedded", verifier="embedded:prm+rules", strategy="beam", budget=Budget(max_seconds=30, max_tokens=40_000)
)
builder = StateGraph(State)
builder.add_node("reason", reasoner)
builder.add_node("check", check)
builder.add_edge(START, "reason")
builder.add_edge("reason", "check")
builder.add_edge("check", END)
graph = builder.compile()


async def main() -> None:
    question = HumanMessage("Make 24 from 4, 5, 6 and 10")
    state = await graph.ainvoke({"messages": [question]})  # type: ignore[arg-type]
    print(state["messages"][-1].text, "checked" if state["checked"] else "not sure")


if __name__ == "__main__":
    import asyncio

    asyncio.run(main())
