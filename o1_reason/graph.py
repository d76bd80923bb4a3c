"""The LangGraph driver: the engine's four transitions as the nodes of a compiled graph.

    START -> backtrack -> generate -> verify -> backtrack ... -> finalize -> END

Model calls in flight belong to the run, not to the state: a callback handler attached to the graph (`_Runs`) keeps
one live search per run and cancels what is left of it when LangGraph says that the run has ended, failed or been
cancelled. What the state holds is the search's log, written as deltas; a resumed run replays it, and calls that had
been ordered but not harvested are ordered again (a ledger answers those that had finished).
"""

import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.channels import UntrackedValue
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from .budget import Budget
from .engine import Record, Search
from .errors import ConfigurationError
from .ledger import Ledger, resolve_ledger
from .loop import Loop
from .messages import answered, asked, not_found, usage_data
from .parts import resolve_parts
from .protocols import Policy, Strategy, Verifier
from .result import Result


def _fold(log: list[Record], writes: Sequence[list[Record]]) -> list[Record]:
    """Append; a "start" record forgets all before it. Batching-invariant, as `DeltaChannel` demands."""
    whole = [*log]
    for records in writes:
        for record in records:
            if record[0] == "start":
                whole = []
            whole.append(record)
    return whole


try:
    from langgraph.channels.delta import DeltaChannel

    _channel: Any = DeltaChannel(_fold, list, snapshot_frequency=4000)
except ImportError:  # langgraph < 1.2.22: the whole log in every checkpoint, O(n^2) bytes
    _channel = lambda log, records: _fold(log, [records])  # noqa: E731


class ReasonerInput(TypedDict, total=False):
    """`question`, or `messages`, of which the last human one is the question and the rest is context."""

    messages: Annotated[list[AnyMessage], add_messages]
    question: str | None


class ReasonerOutput(TypedDict, total=False):
    """`messages` gains the answer; `usage` holds totals and the shares of policy and verifier."""

    messages: Annotated[list[AnyMessage], add_messages]
    answer: str | None
    confidence: float | None
    stop: str
    usage: dict[str, Any]
    ranking: list[tuple[str, float]]
    tree: Annotated[dict[str, Any], UntrackedValue(dict)]  # Tree.to_data(), not kept in checkpoints


class ReasonerState(ReasonerInput, ReasonerOutput, total=False):
    """What the checkpointer keeps: plain JSON types only."""

    log: Annotated[list[Any], _channel]


class _Live:
    """A search under way, and the loop its calls live on (None: the caller's own)."""

    def __init__(self, search: Search, loop: Loop | None) -> None:
        self.search = search
        self.loop = loop

    def close(self) -> None:
        if self.loop is not None:
            self.loop.close(self.search.close())
        else:
            self.search.cancel()


class _Runs(BaseCallbackHandler):
    """Live searches by the id of the graph run they belong to; LangGraph tells when a run ends, in whatever way."""

    run_inline = True

    def __init__(self) -> None:
        self._parents: dict[UUID, UUID | None] = {}
        self._live: dict[UUID, _Live] = {}
        self._lock = threading.Lock()

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._parents[run_id] = parent_run_id

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._parents.pop(run_id, None)
        live = self._live.pop(run_id, None)
        if live is not None:
            live.close()

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.on_chain_end(None, run_id=run_id)

    def live(self, config: RunnableConfig, make: Callable[[], _Live]) -> _Live:
        """The search of the run that this node belongs to."""
        node_run = getattr(config.get("callbacks"), "parent_run_id", None)
        graph_run = self._parents.get(node_run) if node_run else None
        if graph_run is None:
            raise ConfigurationError("a reasoner's nodes run inside their graph only")
        with self._lock:
            if graph_run not in self._live:
                self._live[graph_run] = make()
            return self._live[graph_run]


class _Node(Runnable[ReasonerState, Any]):
    """One transition as a node; it needs no run of its own in the trace, so it is a bare Runnable."""

    def __init__(self, phase: str, open_search: Callable[[ReasonerState], Search], runs: _Runs) -> None:
        self.name = phase
        self._open = open_search
        self._runs = runs

    async def ainvoke(self, input: ReasonerState, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        live = self._runs.live(config or {}, lambda: _Live(self._open(input), None))
        return await self._step(live.search, get_stream_writer())

    def invoke(self, input: ReasonerState, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        live = self._runs.live(config or {}, lambda: _Live(self._open(input), Loop()))
        assert live.loop is not None
        return live.loop.run(self._step(live.search, get_stream_writer()))

    async def _step(self, search: Search, writer: Callable[[Any], None]) -> Any:
        search.on_event = writer
        try:
            match self.name:
                case "generate":
                    await search.generate()
                case "verify":
                    await search.verify()
                case "backtrack":
                    over = search.backtrack()
                    return Command(update=_written(search), goto="finalize" if over else "generate")
                case _:
                    await search.close()  # first, so that the result counts what was cancelled
                    result = search.finalize()
                    # An answered question must not stand in for the next turn's messages on the same thread.
                    return _output(result) | {"question": None} | _written(search)
            return _written(search)
        except BaseException:
            await search.close()
            raise


class _Reasoner(CompiledStateGraph[Any, Any, Any, Any]):
    """The budget ends a search; a limit on supersteps, which `batch` sets to 25, would end it without an answer."""

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return super().stream(input, _unlimited(config), **kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return super().astream(input, _unlimited(config), **kwargs)


def _unlimited(config: RunnableConfig | None) -> RunnableConfig:
    return {**(config or {}), "recursion_limit": 1_000_000_000}


def _written(search: Search) -> dict[str, Any]:
    records, search.log = search.log, []
    return {"log": records} if records else {}


def create_reasoner(
    policy: Any,
    verifier: Any = None,
    *,
    strategy: Any = "beam",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    seed: int = 0,
    checkpointer: Any = None,
    store: Any = None,
    ledger: Any = None,
    name: str = "reasoner",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A compiled graph that searches: a node of another graph, or on its own.

    policy, verifier  an object, a LangChain chat model, or an adapter's name such as ``"embedded"``
    strategy          an object, or a name such as ``"beam"``
    checkpointer      None: the surrounding graph's, if there is one; False: none
    ledger            a path (SQLite), a LangGraph store or a `Ledger`: no finished call is ever paid twice

    Input ``{"messages": [...]}`` (the last human message is the question, the rest is context) or
    ``{"question": "..."}``; output: `ReasonerOutput`. Works by ``ainvoke``, ``invoke``, ``astream``, ``stream`` and
    ``abatch``; ``stream_mode="custom"`` gives an event for each node created, scored, backtracked to or failed, and
    one at the end.

    Raises ConfigurationError for what cannot work; the run raises PolicyError or VerifierError if no call succeeded.
    """
    parts = resolve_parts(policy, verifier, strategy, ledger)
    book = resolve_ledger(ledger)

    def open_search(state: ReasonerState) -> Search:
        return _open(state, *parts, budget, seed, book)

    runs = _Runs()
    graph = StateGraph(ReasonerState, input_schema=ReasonerInput, output_schema=ReasonerOutput)
    nodes = {phase: _Node(phase, open_search, runs) for phase in ("backtrack", "generate", "verify", "finalize")}
    graph.add_node("backtrack", nodes["backtrack"], destinations=("generate", "finalize"), input_schema=ReasonerState)
    for phase in ("generate", "verify", "finalize"):
        graph.add_node(phase, nodes[phase], input_schema=ReasonerState)
    graph.add_edge(START, "backtrack")
    graph.add_edge("generate", "verify")
    graph.add_edge("verify", "backtrack")
    graph.add_edge("finalize", END)
    compiled = graph.compile(checkpointer=checkpointer, store=store, name=name)
    return _Reasoner(**vars(compiled)).with_config(callbacks=[runs])


def _open(
    state: ReasonerState,
    policy: Policy,
    verifier: Verifier | None,
    strategy: Strategy,
    budget: Budget,
    seed: int,
    ledger: Ledger | None,
) -> Search:
    """A new search, or the one that the state's log tells of, as far as it got."""
    question, context = asked(state.get("messages") or [], state.get("question"))
    search = Search(question, policy, verifier, strategy, budget, context=context, seed=seed, ledger=ledger, log=[])
    start: Record = ["start", question, list(context), seed]
    log: list[Record] = state.get("log") or []
    if log and log[0] == start and log[-1][0] != "end":
        search.replay(log[1:])
    else:
        search.log = [start]
    return search


def _output(result: Result) -> dict[str, Any]:
    text = result.answer if result.answer is not None else not_found(result)
    return {
        "messages": [answered(result, text, "reasoner", reasoning=result.text)],
        "answer": result.answer,
        "confidence": result.confidence,
        "stop": result.stop,
        "usage": usage_data(result),
        "ranking": [list(entry) for entry in result.ranking],
        "tree": result.tree.to_data(),
    }
