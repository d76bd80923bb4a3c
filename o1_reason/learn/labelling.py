"""Labels for many problems: each is a task that can be stopped, resumed and run anywhere."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ..errors import ConfigurationError
from ..ledger import Ledger
from ..mdp import State, Usage
from ..resolve import resolve_policy
from .monte_carlo import MathShepherd, MiPS
from .omega_prm import OmegaPRM
from .problems import Checker, Problem
from .progress import Progress, Tracker
from .rollouts import Roller, texts
from .rows import Row
from .star import STaR
from .store import RecordStore, digest, opened
from .tasks import run_tasks, shared_ledger
from .traces import finished_states, known, problem_of, tree_of


@dataclass(frozen=True, slots=True)
class Solved:
    """A problem with finished solutions of it, to be labelled."""

    problem: Problem
    solutions: tuple[State, ...]


def solved(traces: Iterable[dict[str, Any]]) -> Iterator[Solved]:
    """The finished paths of each trace."""
    for trace in traces:
        states = tuple(state for _, state in finished_states(tree_of(trace)))
        if states:
            yield Solved(problem_of(trace), states)


class Method(Protocol):
    """A way to make rows of training data out of a problem. A frozen dataclass: its repr is part of what is kept."""

    async def label(self, problem: Problem, given: Sequence[State] | None, roller: Roller, key: str) -> list[Row]:
        """Rows with ids that depend on `key`, which stands for all that decides them, and on the row alone."""
        ...


METHODS: dict[str, Callable[..., Method]] = {
    "math_shepherd": MathShepherd,
    "mips": MiPS,
    "omega_prm": OmegaPRM,
    "star": STaR,
}


async def label(
    items: Iterable[Problem | Solved],
    method: Method | str,
    policy: Any,
    checker: Checker,
    store: RecordStore,
    *,
    seed: int = 0,
    temperature: float | None = None,
    max_steps: int = 64,
    concurrency: int = 4,
    calls: int = 16,
    ledger: Any = None,
    on_progress: Callable[[Progress], None] = lambda so_far: None,
    ray: str | None = None,
) -> Progress:
    """Make rows by `method` and add them to `store`; what is in it from an earlier run is not made again.

    method       `MathShepherd`, `MiPS`, `OmegaPRM`, `STaR`, or one of their names in `METHODS`
    policy       an object, a LangChain chat model, or the name of an adapter
    seed         of all sampling; temperature None is the policy's own
    concurrency  problems at once, and of each `calls` of the policy
    ledger       keeps finished calls: a problem that was half done, too, is paid for once
    ray          see `run_tasks`

    Beside the store, in ``FILE.done``, stands which problems are done. A problem that fails is left out and can be
    done by another run; if all fail, the first error is raised. Cancelling it loses nothing that was added.
    """
    way = METHODS[method]() if isinstance(method, str) and method in METHODS else method
    if isinstance(way, str):
        raise ConfigurationError(f"no method {way!r}; there are: {', '.join(METHODS)}")
    mine = resolve_policy(policy)
    made_by = [known(mine, "policy"), checker.identity, repr(way), seed, temperature, max_steps]
    tracker = Tracker(items, on_progress)
    done = RecordStore(store.path.with_name(store.path.name + ".done"), fsync=store.fsync)
    async with opened(store, done), shared_ledger(ledger, ray) as book:
        roll = partial(Roller, seed=seed, concurrency=calls, temperature=temperature, max_steps=max_steps)
        function = partial(_label, way, mine if ray is None else policy, checker, book, roll)
        tasks = _tasks(items, made_by, done, tracker)
        async with aclosing(run_tasks(function, tasks, concurrency=concurrency, ray=ray)) as outcomes:
            async for task, outcome in outcomes:
                if isinstance(outcome, Exception):
                    tracker.failed(task.problem.question, seed, outcome)
                    continue
                await store.add(*outcome.rows)
                await done.add({"id": task.key, "usage": outcome.usage.to_data(), "rollouts": outcome.rollouts})
                tracker.added(outcome.usage, rows=len(outcome.rows), rollouts=outcome.rollouts)
    return tracker.finish()


@dataclass(frozen=True, slots=True)
class _Task:
    key: str
    problem: Problem
    given: tuple[State, ...] | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    rows: list[Row]
    usage: Usage
    rollouts: int


def _tasks(
    items: Iterable[Problem | Solved], made_by: Sequence[Any], done: RecordStore, tracker: Tracker
) -> Iterator[_Task]:
    for item in items:
        problem, given = (item.problem, item.solutions) if isinstance(item, Solved) else (item, None)
        solutions = None if given is None else [texts(state) for state in given]
        key = digest(problem.question, list(problem.context), problem.gold, solutions, *made_by)
        if key in done:
            tracker.known()
        else:
            yield _Task(key, problem, given)


async def _label(
    method: Method, policy: Any, checker: Checker, ledger: Ledger | None, roll: Callable[..., Roller], task: _Task
) -> _Outcome:
    roller = roll(resolve_policy(policy), checker, ledger=ledger)
    rows = await method.label(task.problem, task.given, roller, task.key)
    return _Outcome(rows, roller.usage, roller.drawn)
