"""Kill a search in the middle and go on later: a checkpointer keeps the tree, a ledger keeps every finished call."""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from o1_reason import MCTS, create_reasoner

thread: RunnableConfig = {"configurable": {"thread_id": "puzzle"}}


async def run(folder: Path, dies: bool) -> None:
    async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver:
        reasoner = create_reasoner(
            "embedded",
            verifier="embedded",
            strategy=MCTS(simulations=24),
            checkpointer=saver,
            ledger=folder / "calls.sqlite",
        )
        if dies:
            scored = 0
            async for event in reasoner.astream(
                {"question": "2 3 8 9"}, thread, stream_mode="custom", durability="sync"
            ):
                scored += event["event"] == "scored"
                if scored == 40:
                    os.kill(os.getpid(), signal.SIGKILL)
        kept = (await reasoner.aget_state(thread)).values["log"]
        state = await reasoner.ainvoke(None, thread)  # None: go on from the checkpoint
        print(f"{len(kept)} records were kept; {state['answer']} after {state['usage']['calls']} calls in all")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = await asyncio.create_subprocess_exec(sys.executable, __file__, folder)
        print("killed" if await first.wait() == -signal.SIGKILL else "not killed")
        await run(Path(folder), dies=False)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), dies=True) if len(sys.argv) > 1 else main())
