"""A person decides: the search pauses when it is not sure enough, or before it spends more than it was told to."""

import asyncio
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from o1_reason import MCTS, Ask, Budget, create_reasoner

reasoner = create_reasoner(
    "embedded",
    "embedded",
    strategy=MCTS(simulations=48),
    ask=Ask(below=0.99, soft=Budget(max_tokens=2_500)),
    checkpointer=InMemorySaver(),  # AsyncSqliteSaver or Postgres: the person may take days
)
thread: RunnableConfig = {"configurable": {"thread_id": "puzzle"}}


def decide(shown: dict[str, Any]) -> Any:
    """Stands for the person; in an app this is a form."""
    print(f"asked because of {shown['why']}, after {shown['usage']['calls']} calls; the best so far:")
    for candidate in shown["candidates"]:
        print(f"  [{candidate['node']}] {candidate['answer']}  {candidate['confidence']}")
    if shown["why"] == "soft limit":
        return "go on"
    if shown["candidates"][0]["steps"][0]["node"] is None:  # has been edited already
        return "go on"
    first = shown["candidates"][0]["steps"][0]
    return {"edit": {"node": first["node"], "text": "10 - 6 = 4 (left: 4 4 5)"}}


async def main() -> None:
    state = await reasoner.ainvoke({"question": "4 5 6 10"}, thread)
    while "__interrupt__" in state:
        decision = decide(state["__interrupt__"][0].value)
        print("decides:", decision)
        state = await reasoner.ainvoke(Command(resume=decision), thread)
    print("answer:", state["answer"])

    fork = {"edit": {"node": 1}}  # time travel: on from the first step of the finished search, whatever came of it
    state = await reasoner.ainvoke(fork, thread, context={"strategy": "beam"})
    while "__interrupt__" in state:
        state = await reasoner.ainvoke(Command(resume="go on"), thread)
    print("another way:", state["answer"], "by", [step["text"] for step in state["tree"]["prefix"]])


if __name__ == "__main__":
    asyncio.run(main())
