"""A chatbot that answers easy turns at once and thinks about hard ones, configured as graphs/reason.py is.

    START -> direct -> END          the first answer, if it is sure enough
             direct -> reason -> END   else a search

O1_REASON_SURE          how sure the first answer must be, in [0, 1]; default 0.8. The verifier judges one greedy
                        answer; without a verifier three samples vote
"""

from os import environ
from typing import Any, Literal

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from o1_reason import ChainOfThought, ConfigurationError, ReasonerContext, SelfConsistency, create_reasoner
from o1_reason.settings import from_environment


class State(MessagesState):
    """The last answer's confidence, and how its search ended."""

    confidence: float | None
    stop: str


class Context(TypedDict, total=False):
    """`reasoner`: what the search may do, as for graphs/reason.py."""

    reasoner: ReasonerContext


settings = from_environment(environ)
sure = float(environ.get("O1_REASON_SURE") or 0.8)
first = SelfConsistency(3) if settings["verifier"] is None else ChainOfThought()
attempt = create_reasoner(**{**settings, "strategy": first}, guarded=True, checkpointer=False, name="attempt")


async def direct(state: State) -> Command[Literal["reason", "__end__"]]:
    try:
        found: Any = await attempt.ainvoke({"messages": state["messages"]}, context={})
    except ConfigurationError as error:  # a question that the model cannot take at all
        said = {"messages": [AIMessage(str(error))], "confidence": None, "stop": "refused"}
        return Command(update=said, goto="__end__")
    if found["answer"] is None or (found["confidence"] or 0.0) < sure:
        return Command(goto="reason")
    told = {name: found[name] for name in ("confidence", "stop")}
    return Command(update={"messages": found["messages"][-1:], **told}, goto="__end__")


builder = StateGraph(State, context_schema=Context)
builder.add_node("direct", direct)
builder.add_node("reason", create_reasoner(**settings, guarded=True, name="reason"))
builder.add_edge(START, "direct")
graph = builder.compile(name="chat")
