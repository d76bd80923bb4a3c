"""One line to swap: a chat model that thinks, in a chain, streamed, and as a tool of an agent."""

import asyncio

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableConfig

from o1_reason import ChatReasoner, reasoning_tool

# Was: model = ChatOpenAI(model="gpt-5-mini"). With a key, policy=ChatOpenAI(...) puts that model behind the search.
model = ChatReasoner(policy="embedded", verifier="embedded:prm+rules", strategy="beam")
chain = ChatPromptTemplate.from_template("Make {target} from {numbers}") | model | StrOutputParser()


async def main() -> None:
    print("chain:", await chain.ainvoke({"target": 24, "numbers": "4, 5, 6 and 10"}))

    steps = 0
    async for chunk in model.astream("3 7 9 13"):
        for block in chunk.content_blocks:
            if block["type"] == "reasoning" and block.get("extras", {}).get("event") == "created":
                steps += 1
            elif block["type"] == "text":
                print(f"after {steps} steps:", block["text"])
        if chunk.usage_metadata:
            print("reasoning tokens:", chunk.usage_metadata.get("output_token_details", {}).get("reasoning"))

    thrifty = model.configurable_fields(
        strategy=ConfigurableField(id="strategy"), budget=ConfigurableField(id="budget")
    )
    config: RunnableConfig = {"configurable": {"strategy": "mcts", "budget": {"max_tokens": 8_000}}}
    message = await thrifty.ainvoke("1 5 5 9", config)
    print("within 8,000 tokens:", message.text, message.response_metadata["stop"])

    tool = reasoning_tool("embedded", "embedded:prm+rules", strategy="mcts", name="solve_puzzle")
    print("tool:", await tool.ainvoke({"question": "2 5 7 11 -> 40"}))


if __name__ == "__main__":
    asyncio.run(main())
