"""An async chatbot: many conversations at once, easy turns answered at once, hard ones searched, all of it streamed."""

import asyncio
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from o1_reason import Budget, create_reasoner


class State(MessagesState):
    confidence: float | None


# With a key: create_reasoner("openai:gpt-5-mini", strategy="self_consistency", ...) in both places.
first = create_reasoner("embedded", "embedded:prm+rules", strategy="cot", checkpointer=False, name="first")
search = create_reasoner(
    "embedded", "embedded:prm+rules", strategy="beam", budget=Budget(max_seconds=30), name="search"
)


def route(state: State) -> str:
    sure = state["confidence"] is not None and state["confidence"] > 0.8
    return "__end__" if sure else "search"


builder = StateGraph(State)
builder.add_node("first", first)
builder.add_node("search", search)
builder.add_edge(START, "first")
builder.add_conditional_edges("first", route, ["search", "__end__"])
bot = builder.compile(checkpointer=InMemorySaver())


async def talk(name: str, *questions: str) -> None:
    thread: RunnableConfig = {"configurable": {"thread_id": name}}
    for question in questions:
        asked: Any = {"messages": [HumanMessage(question)]}
        nodes = 0
        stream: Any = bot.astream(asked, thread, stream_mode="custom", subgraphs=True)
        async for _, event in stream:
            nodes += event["event"] == "created"
        state = await bot.aget_state(thread)
        print(f"{name}: {question} -> {state.values['messages'][-1].text} ({nodes} steps tried)")


async def main() -> None:
    await asyncio.gather(talk("a", "4 4 6 10", "3 7 9 13"), talk("b", "4 5 6 10"), talk("c", "2 5 7 11 -> 40"))


if __name__ == "__main__":
    asyncio.run(main())
