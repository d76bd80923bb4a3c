"""Stop a search in the middle and go on later: a checkpointer keeps the tree, a ledger keeps every finished call."""

import asyncio
import tempfile
from pathlib import Path

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from o1_reason import MCTS, create_reasoner


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        reasoner = create_reasoner(
            "embedded",
            verifier="embedded",
            strategy=MCTS(simulations=24),
            checkpointer=InMemorySaver(),  # AsyncSqliteSaver or Postgres survive the process, too
            ledger=Path(folder) / "calls.sqlite",
        )
        thread: RunnableConfig = {"configurable": {"thread_id": "puzzle"}}
        try:
            async with asyncio.timeout(0.15):
                await reasoner.ainvoke({"question": "2 3 8 9"}, thread)
        except TimeoutError:
            print("interrupted")
        state = await reasoner.ainvoke(None, thread)  # None: go on from the checkpoint
        print(state["answer"], state["usage"]["calls"], "calls in all")


if __name__ == "__main__":
    asyncio.run(main())
