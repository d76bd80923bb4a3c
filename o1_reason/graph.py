"""The LangGraph driver: the engine's four transitions as the nodes of a compiled graph.

    START -> backtrack -> generate -> verify -> backtrack ... -> finalize -> END

Where a person is to be asked, or a step's tools have effects, a fifth node, `review`, comes between backtrack and
finalize; from there the search may go on.

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
from langgraph.config import get_config, get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import get_runtime
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from .asking import Ask, Decision, apply, asks, begin_anew, decided, edited
from .budget import Budget
from .context import Choices, ReasonerContext, choose
from .driver import REFUSED
from .engine import Search
from .errors import ConfigurationError
from .history import Record
from .ledger import resolve_ledger
from .loop import Loop
from .messages import answered, asked, not_found, usage_data
from .parts import resolve_parts
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
    """`question`, or `messages`, of which the last human one is the question and the rest is context.

    `edit`, on the thread of an earlier search: fork that search at a node, ``{"node": 7, "text": "the step, written
    anew"}``; without a text, search on from the node as it is.
    """

    messages: Annotated[list[AnyMessage], add_messages]
    question: str | None
    edit: dict[str, Any] | None


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

    def __init__(self, search: Search, choices: Choices, forked: bool, loop: Loop | None) -> None:
        self.search = search
        self.forked = forked  # as the input asks, which is to be forgotten then
        self.ask, self.budget = choices.ask, choices.budget
        self.loop = loop

    @property
    def reviewed(self) -> bool:
        """Whether something is to be done before the search can be over."""
        return self.search.pending is not None or self.ask.why(self.search, self.budget) is not None

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

    def __init__(self, phase: str, defaults: Choices, guarded: bool, reviews: bool, runs: _Runs) -> None:
        self.name = self._phase = phase
        self._defaults = defaults
        self._guarded = guarded
        self._reviews = reviews
        self._runs = runs

    async def ainvoke(self, input: ReasonerState, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        live = self._runs.live(config or {}, lambda: self._open(input, None))
        return await self._step(live, self._decision(live), get_stream_writer())

    def invoke(self, input: ReasonerState, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        live = self._runs.live(config or {}, lambda: self._open(input, Loop()))
        assert live.loop is not None
        return live.loop.run(self._step(live, self._decision(live), get_stream_writer()))

    def _open(self, state: ReasonerState, loop: Loop | None) -> _Live:
        nested = "|" in get_config().get("configurable", {}).get("checkpoint_ns", "")
        choices = choose(self._defaults, get_runtime().context, nested, self._guarded)
        return _Live(_open(state, choices, self._phase), choices, state.get("edit") is not None, loop)

    def _decision(self, live: _Live) -> Decision | None:
        """What a person has decided; until then this raises LangGraph's interrupt. None: nobody is to be asked."""
        if self._phase != "review":
            return None
        search = live.search
        why = live.ask.why(search, live.budget)
        if why is None:
            return None
        if get_config().get("configurable", {}).get("__pregel_checkpointer") is None:
            raise ConfigurationError("to ask a person, the graph needs a checkpointer: compile it with one")
        shown = asks(search, why, live.ask)
        while True:
            try:
                return decided(interrupt(shown), search, why)
            except ConfigurationError as error:
                shown = {**shown, "error": str(error)}

    async def _step(self, live: _Live, decision: Decision | None, writer: Callable[[Any], None]) -> Any:
        search = live.search
        search.on_event = writer
        try:
            match self._phase:
                case "generate":
                    await search.generate()
                case "verify":
                    await search.verify()
                case "backtrack":
                    then = self._after(search.backtrack(), live)
                    forked, live.forked = live.forked, False
                    return Command(update=_written(search) | ({"edit": None} if forked else {}), goto=then)
                case "review":
                    goes_on = await _review(live, decision)
                    return Command(update=_written(search), goto="backtrack" if goes_on else "finalize")
                case _:
                    await search.close()  # first, so that the result counts what was cancelled
                    result = search.finalize()
                    # An answered question must not stand in for the next turn's messages on the same thread.
                    return _output(result) | {"question": None} | _written(search)
            return _written(search)
        except BaseException:
            await search.close()
            raise

    def _after(self, over: bool, live: _Live) -> str:
        """The node after backtrack."""
        if not over:
            return "generate"
        if not live.reviewed:
            return "finalize"
        if not self._reviews:
            raise ConfigurationError(
                "this reasoner has no node to run tools from: give a policy with tools to create_reasoner, not in the "
                "context"
            )
        return "review"


async def _review(live: _Live, decision: Decision | None) -> bool:
    """Carry out a decision; run the tools of the chosen step if nobody was to be asked. True: the search goes on."""
    search = live.search
    await search.close()
    if search.pending is not None and (decision is None or decision.kind in ("go on", "refuse")):
        refused = decision is not None and decision.kind == "refuse"
        await search.act((decision.reason or REFUSED) if decision and refused else None)
        return True
    assert decision is not None
    return apply(decision, search, live.ask, live.budget)


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
    ask: Ask | None = None,
    guarded: bool = False,
    name: str = "reasoner",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A compiled graph that searches: a node of another graph, or on its own.

    policy, verifier  an object, a LangChain chat model, or an adapter's name such as ``"embedded"``
    strategy          an object, or a name such as ``"beam"``
    checkpointer      None: the surrounding graph's, if there is one; False: none
    ledger            a path (SQLite), a LangGraph store or a `Ledger`: no finished call is ever paid twice
    ask               when to pause for a person (LangGraph's interrupt; ``Command(resume=...)`` goes on)
    guarded           callers are not trusted: a context may name a strategy and lower the budget, nothing else

    Input ``{"messages": [...]}`` (the last human message is the question, the rest is context),
    ``{"question": "..."}``, or ``{"edit": ...}`` to fork the thread's last search; output: `ReasonerOutput`. Works by
    ``ainvoke``, ``invoke``, ``astream``, ``stream`` and ``abatch``; ``stream_mode="custom"`` gives an event for each
    node created, scored, backtracked to or failed, and one at the end. ``context=`` (`ReasonerContext`) changes
    models, strategy and budget of one call; in a larger graph it is the field `reasoner` of that graph's context.

    Raises ConfigurationError for what cannot work; the run raises PolicyError or VerifierError if no call succeeded.
    """
    parts = resolve_parts(policy, verifier, strategy, ledger)
    defaults = Choices(*parts, budget, seed, ask or Ask(), resolve_ledger(ledger))
    reviews = ask is not None or hasattr(parts[0], "act")
    runs = _Runs()
    graph = StateGraph(
        ReasonerState, input_schema=ReasonerInput, output_schema=ReasonerOutput, context_schema=ReasonerContext
    )
    more = ("review",) if reviews else ()
    ways = {"backtrack": ("generate", "finalize", *more), "review": ("backtrack", "finalize")}
    for phase in ("backtrack", "generate", "verify", "finalize", *more):
        node = _Node(phase, defaults, guarded, reviews, runs)
        graph.add_node(phase, node, destinations=ways.get(phase), input_schema=ReasonerState)
    graph.add_edge(START, "backtrack")
    graph.add_edge("generate", "verify")
    graph.add_edge("verify", "backtrack")
    graph.add_edge("finalize", END)
    compiled = graph.compile(checkpointer=checkpointer, store=store, name=name)
    return _Reasoner(**vars(compiled)).with_config(callbacks=[runs])


def _open(state: ReasonerState, choices: Choices, phase: str) -> Search:
    """A new search, a fork of the one that the state's log tells of, or that one itself as far as it got."""
    log: list[Record] = state.get("log") or []
    wanted, edit = _asked(state), state.get("edit")
    if edit is not None:
        return _fork(log, edit, wanted, choices)
    told: dict[str, Any] = log[0][1] if log and log[-1][0] != "end" else {}
    if told and told["asked"] == wanted and told["seed"] == choices.seed:
        search = choices.search(told)
        search.take_up(told)
        search.replay(log[1:])
        return search
    if phase != "backtrack":
        raise ConfigurationError("the checkpoint is of a search with another question or seed; ask anew")
    question, context = wanted or asked([])  # which says what is missing
    search = choices.search({"question": question, "context": context, "steps": []})
    search.asked = wanted
    search.log = [search.start]
    return search


def _fork(log: list[Record], edit: dict[str, Any], wanted: list[Any] | None, choices: Choices) -> Search:
    if not log:
        raise ConfigurationError("there is no search on this thread to edit; ask a question first")
    told = log[0][1]
    search = choices.search(told)
    search.replay(log[1:])
    fork = choices.search({**told, "steps": [], "widened": 0})
    fork.asked = wanted
    begin_anew(fork, edited(search, edit))
    return fork


def _asked(state: ReasonerState) -> list[Any] | None:
    """Question and context; None where the state has none."""
    try:
        question, context = asked(state.get("messages") or [], state.get("question"))
    except ConfigurationError:
        return None
    return [question, list(context)]


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
