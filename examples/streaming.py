"""Watch a search as it runs: one event for each node created, scored, backtracked to or failed, one at the end."""

import asyncio

from o1_reason import MCTS, create_reasoner

reasoner = create_reasoner("embedded", verifier="embedded", strategy=MCTS(simulations=12))


async def main() -> None:
    async for event in reasoner.astream({"question": "3 7 9 13"}, stream_mode="custom"):
        match event["event"]:
            case "scored" if event["reward"] > 0.9:
                print(f"node {event['node']} looks good: {event['reward']:.2f}")
            case "backtracked":
                print(f"back to node {event['node']}")
            case "finished":
                print(f"answer {event['answer']}, confidence {event['confidence']}")


if __name__ == "__main__":
    asyncio.run(main())
