"""A trace: one search, whole, as a record. What it brought is decided by what its id is made of."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..budget import Budget
from ..errors import ConfigurationError
from ..mdp import State, Step
from ..resolve import resolve_policy, resolve_strategy, resolve_verifier
from ..result import Result
from ..tree import Tree
from .problems import Problem
from .store import RecordStore, digest

Trace = dict[str, Any]


class Setting:
    """A policy, a verifier, a strategy and a budget, by what tells them apart from others.

    Raises ConfigurationError for a policy or verifier without `identity`, or a strategy whose repr tells nothing.
    """

    def __init__(self, policy: Any, verifier: Any, strategy: Any, budget: Budget) -> None:
        self.strategy = resolve_strategy(strategy)
        self.policy = known(resolve_policy(policy), "policy")
        judge = resolve_verifier(verifier) if getattr(self.strategy, "uses_verifier", True) else None
        self.verifier = None if judge is None else known(judge, "verifier")
        self.budget = budget
        if type(self.strategy).__repr__ is object.__repr__:
            raise ConfigurationError(
                f"nothing tells one {type(self.strategy).__name__} from another: make it a dataclass, or give it a "
                "__repr__ with its settings"
            )

    def id(self, problem: Problem, seed: int, steps: Sequence[Step] = ()) -> str:
        """The id of the search of `problem` with `seed`, going on from `steps`."""
        asked = [problem.question, list(problem.context), [step.text for step in steps]]
        return digest("trace", asked, self.policy, self.verifier, repr(self.strategy), repr(self.budget), seed)

    def trace(self, result: Result, problem: Problem, correct: bool | None) -> Trace:
        return {
            "id": self.id(problem, result.tree.seed, result.tree.prefix),
            "question": problem.question,
            "context": list(problem.context),
            "gold": problem.gold,
            "policy": self.policy,
            "verifier": self.verifier,
            "strategy": repr(self.strategy),
            "seed": result.tree.seed,
            "stop": result.stop,
            "answer": result.answer,
            "correct": correct,
            "node": result.node,
            "usage": result.usage.to_data(),
            "tree": result.tree.to_data(),
        }


def known(plug_in: object, role: str) -> str:
    """Its identity. Raises ConfigurationError where it has none."""
    identity = getattr(plug_in, "identity", None)
    if not isinstance(identity, str) or not identity:
        raise ConfigurationError(
            f"a record names its {role}: give {type(plug_in).__name__} an attribute identity: str (model, endpoint, "
            "sampling parameters)"
        )
    return identity


def trace_of(
    result: Result,
    policy: Any,
    verifier: Any,
    strategy: Any,
    budget: Budget,
    *,
    gold: str | None = None,
    correct: bool | None = None,
) -> Trace:
    """The trace of a search that was given `policy`, `verifier`, `strategy` and `budget`: objects, or their names."""
    tree = result.tree
    problem = Problem(tree.question, gold, tree.context)
    return Setting(policy, verifier, strategy, budget).trace(result, problem, correct)


class TraceStore(RecordStore):
    """Traces in a file. Iterating raises ConfigurationError for records that are none."""

    def __iter__(self) -> Iterator[Trace]:
        for number, record in enumerate(super().__iter__(), 1):
            if not isinstance(record.get("tree"), dict):
                raise ConfigurationError(f'{self.path}, line {number}: a trace has a "tree"; give a file of traces')
            yield record


def tree_of(trace: Trace) -> Tree:
    return Tree.from_data(trace["tree"])


def problem_of(trace: Trace) -> Problem:
    return Problem(trace["question"], trace["gold"], tuple(trace["context"]))


def finished_states(tree: Tree) -> list[tuple[int, State]]:
    """The finished paths of a tree, oldest first, with their nodes."""
    return [(i, tree.state(i)) for i in tree.terminals]
