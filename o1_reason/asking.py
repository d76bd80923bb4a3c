"""When a search asks a person, what it shows, and what the person may answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .aggregate import answer_of
from .budget import Budget, tranche
from .engine import Search
from .errors import ConfigurationError
from .mdp import State, Step

Why = Literal["confidence", "soft limit", "tools"]


@dataclass(frozen=True, slots=True)
class Ask:
    """When a person is to be asked.

    below  before an answer goes out of whose confidence is less, in [0, 1], or unknown
    soft   before more is spent than this; each "go on" allows as much again, within the budget. Its seconds begin
           anew each time
    tools  before a tool with effects runs
    show   candidates that are shown
    """

    below: float | None = None
    soft: Budget | None = None
    tools: bool = False
    show: int = 3

    def __post_init__(self) -> None:
        if self.below is not None and not 0 <= self.below <= 1:
            raise ConfigurationError(f"Ask.below must be a confidence in [0, 1]; got {self.below!r}")
        if self.show < 1:
            raise ConfigurationError(f"Ask.show must be at least 1; got {self.show!r}")

    def within(self, budget: Budget, widened: int) -> Budget:
        """The limits of a search that was allowed to go on so often."""
        return budget if self.soft is None else tranche(budget, self.soft, widened + 1)

    def why(self, search: Search, budget: Budget) -> Why | None:
        """Why a person is asked about a search that has stopped, and whose limits are those of `budget`."""
        if search.pending is not None:
            return "tools" if self.tools else None
        if search.stop in ("budget", "deadline") and not search.settled and search.budget != budget:
            return "soft limit"
        if self.below is None or search.settled:
            return None
        for node, sure in search.candidates(1):
            if search.tree.nodes[node].terminal and (sure or 0.0) >= self.below:
                return None
        return "confidence"


OPTIONS: Mapping[Why, str] = {
    "confidence": '"go on" gives out the best one; {"choose": NODE} another; {"edit": {"node": NODE, "text": "..."}} '
    "writes that step anew and searches on from there",
    "soft limit": '"go on" allows as much again; "stop" ends with the best so far; {"choose": NODE} with another; '
    '{"edit": {"node": NODE, "text": "..."}} writes that step anew and searches on from there',
    "tools": '"go on" runs them; {"refuse": "REASON"} tells the policy so; {"edit": {"node": NODE, "text": "..."}} '
    "writes that step anew and searches on from there",
}


def asks(search: Search, why: Why, ask: Ask) -> dict[str, Any]:
    """What the person is shown, in plain JSON types: why, the candidates with their steps, cost, and the options."""
    tree = search.tree
    shown: dict[str, Any] = {
        "type": "o1_reason",
        "why": why,
        "question": tree.question,
        "candidates": [
            {"node": node, "answer": answer_of(tree, node), "confidence": sure, "steps": _steps(search, node)}
            for node, sure in search.candidates(ask.show)
        ],
        "stop": search.stop,
        "usage": search.meter.usage.to_data(),
        "options": OPTIONS[why],
    }
    if search.pending is not None:
        calls = [call for call in search.pending.steps[-1].calls if call.result is None]
        shown["calls"] = [{"name": call.name, "arguments": call.arguments} for call in calls]
    if why == "confidence":
        shown["below"] = ask.below
    return shown


def _steps(search: Search, node: int) -> list[dict[str, Any]]:
    tree = search.tree
    path = [tree.nodes[i] for i in tree.path(node)[1:]]
    given: list[dict[str, Any]] = [{"node": None, "text": step.text, "reward": None} for step in tree.prefix]
    return given + [{"node": at.id, "text": at.step.text, "reward": at.reward} for at in path if at.step]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person has decided: one of "go on", "stop", "choose" with `node`, "edit" with `steps`, "refuse"."""

    kind: str
    node: int = 0
    steps: tuple[Step, ...] = ()
    reason: str = ""


def decided(given: Any, search: Search, why: Why) -> Decision:
    """Raises ConfigurationError for what cannot be done."""
    kind, value = (given, None) if isinstance(given, str) else _only(given)
    allowed = {"confidence": ("go on", "choose", "edit"), "soft limit": ("go on", "stop", "choose", "edit"),
               "tools": ("go on", "refuse", "edit")}[why]  # fmt: skip
    if kind not in allowed:
        raise ConfigurationError(f"{given!r} is no answer to that; answer {OPTIONS[why]}")
    if kind == "choose":
        tree = search.tree
        if not (isinstance(value, int) and 0 < value < len(tree) and tree.nodes[value].terminal):
            raise ConfigurationError(f"node {value!r} is no finished candidate; choose the `node` of one that is shown")
        return Decision(kind, value)
    if kind == "edit":
        return Decision(kind, steps=edited(search, value))
    return Decision(kind, reason=str(value or ""))


def edited(search: Search, edit: Any) -> tuple[Step, ...]:
    """The steps up to a node, the last one as it was written anew; without a text, just the steps.

    Raises ConfigurationError for what is no such node, or leaves nothing to go on from.
    """
    tree = search.tree
    node, text = (edit.get("node"), edit.get("text")) if isinstance(edit, Mapping) else (None, None)
    if not (isinstance(node, int) and 0 < node < len(tree)) or not (text is None or (isinstance(text, str) and text)):
        raise ConfigurationError(
            f'an edit is {{"node": NODE, "text": "the step, written anew"}} with a node from 1 to {len(tree) - 1}; '
            f"got {edit!r}"
        )
    if text is not None:
        return (*tree.steps(tree.nodes[node].parent or 0), Step(text))
    if tree.nodes[node].terminal:
        raise ConfigurationError(f"node {node} is finished, nothing can follow it: give a text, or an earlier node")
    return tree.steps(node)


def apply(decision: Decision, search: Search, ask: Ask, budget: Budget) -> bool:
    """Carry out a decision about a search in which nothing is in flight and no tool waits.

    True: it goes on; False: it is over.
    """
    match decision.kind:
        case "choose":
            search.choose(decision.node)
        case "edit":
            return begin_anew(search, decision.steps)
        case "go on" if ask.why(search, budget) == "soft limit":
            search.widen()
            return True
    return False


def begin_anew(search: Search, steps: tuple[Step, ...]) -> bool:
    """Search on behind `steps`. False: the last one states the answer, and the search is over with it."""
    state = State(search.tree.question, steps, search.tree.context)
    extract = getattr(search.models.policy, "extract", None)
    answer = extract(state) if extract and steps else None
    if answer is None:
        search.restart(steps)
        return True
    search.restart(steps[:-1])
    search.finish(Step(steps[-1].text, True, answer))
    return False


def _only(given: Any) -> tuple[str, Any]:
    """The only item of a mapping."""
    if isinstance(given, Mapping) and len(given) == 1:
        return next(iter(given.items()))
    return "", None
