"""An agent with one attempt at a puzzle: on its own it blurts out the first idea, with the middleware it compares.

With --puzzles 50, how often each of them is right, on validation puzzles (ranks 801 and on).
"""

import argparse
import asyncio
from importlib.resources import files
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from o1_reason_embedded import EmbeddedChatModel, TurnVerifier
from o1_reason_embedded.puzzle import parse, solves

from o1_reason import ReasoningMiddleware


async def solved(puzzle: str, middleware: list[Any], show: bool = True) -> bool:
    """Whether the agent's only attempt is right."""
    attempts: list[str] = []

    @tool
    def submit(expression: str) -> str:
        """Hand in the solution of the puzzle. There is only one attempt."""
        attempts.append(expression)
        if len(attempts) > 1:
            return "not accepted: there was only one attempt"
        return "right" if solves(parse(puzzle), expression) else "wrong"

    # With a key: create_agent("openai:gpt-5-mini", [submit], middleware=[ReasoningMiddleware("openai:gpt-5-mini")])
    agent = create_agent(EmbeddedChatModel(), [submit], middleware=middleware)
    state = await agent.ainvoke({"messages": [HumanMessage(puzzle)]})
    if show:
        print(f"hands in {attempts[:1]} and ends with: {state['messages'][-1].text}")
        told = state["messages"][1].response_metadata.get("o1_reason")
        if told:
            print(f"agreement {told['agreement']:.2f}, searched: {told['searched']}, cost: {state['reasoning_usage']}")
    return solves(parse(puzzle), "".join(attempts[:1]))


async def main(puzzles: int) -> None:
    thinking = ReasoningMiddleware(TurnVerifier())
    print("alone:", await solved("4 5 6 10", []))
    print("with the middleware:", await solved("4 5 6 10", [thinking]))
    lines = (files("o1_reason_embedded") / "puzzles24.txt").read_text().splitlines()[800 : 800 + puzzles]
    if lines:
        print("alone:", sum([await solved(puzzle, [], False) for puzzle in lines]), "of", len(lines))
        print("with the middleware:", sum([await solved(puzzle, [thinking], False) for puzzle in lines]))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--puzzles", type=int, default=0, help="how many validation puzzles")
    asyncio.run(main(**vars(options.parse_args())))
