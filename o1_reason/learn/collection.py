"""Searches over many problems, kept as traces."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..budget import Budget
from ..driver import search
from ..errors import ConfigurationError
from ..ledger import Ledger
from ..mdp import Usage
from ..resolve import resolve_policy, resolve_verifier
from .problems import Checker, GoldChecker, Problem
from .progress import Progress, Tracker
from .store import opened
from .tasks import run_tasks, shared_ledger
from .traces import Setting, Trace, TraceStore


async def collect(
    problems: Iterable[Problem],
    policy: Any,
    verifier: Any,
    strategy: Any,
    budget: Budget,
    checker: Checker | None,
    store: TraceStore,
    *,
    samples: int = 1,
    seed: int = 0,
    concurrency: int = 4,
    ledger: Any = None,
    on_progress: Callable[[Progress], None] = lambda so_far: None,
    ray: str | None = None,
) -> Progress:
    """Search each problem `samples` times, with the seeds `seed`, `seed` + 1, ..., and add the traces to `store`.

    policy, verifier, strategy, budget   as `search` takes them
    checker       says whether the answer is right; None: the same as the gold answer, unknown where there is none
    concurrency   searches at once; each has as many calls in flight as its budget says
    ledger        keeps finished calls: a search that was half done is not paid for again
    on_progress   called whenever a search is done, found in the store, or has failed
    ray           see `run_tasks`; give policy and verifier by name then

    Searches whose traces are in the store are left out. One that fails is told of and left out, too, to be done by
    another run; if all fail, the first error is raised. Cancelling it cancels all searches and loses no trace. Raises
    ConfigurationError for what cannot work.
    """
    if samples < 1 or concurrency < 1:
        raise ConfigurationError(f"samples and concurrency must be at least 1; got {samples} and {concurrency}")
    setting = Setting(policy, verifier, strategy, budget)
    judge = GoldChecker() if checker is None else checker
    tracker = Tracker(problems, on_progress, each=samples)
    if ray is None:  # workers, which get what was given, make their own of names
        policy, verifier = resolve_policy(policy), resolve_verifier(verifier)
    async with opened(store), shared_ledger(ledger, ray) as book:
        function = partial(_search, policy, verifier, setting.strategy, budget, judge, book)
        tasks = _tasks(problems, range(seed, seed + samples), setting, store, tracker)
        async with aclosing(run_tasks(function, tasks, concurrency=concurrency, ray=ray)) as outcomes:
            async for task, trace in outcomes:
                if isinstance(trace, Exception):
                    tracker.failed(task.problem.question, task.seed, trace)
                else:
                    await store.add(trace)
                    tracker.added(Usage(**trace["usage"]), correct=trace["correct"])
    return tracker.finish()


@dataclass(frozen=True, slots=True)
class _Task:
    problem: Problem
    seed: int


def _tasks(
    problems: Iterable[Problem], seeds: Iterable[int], setting: Setting, store: TraceStore, tracker: Tracker
) -> Iterator[_Task]:
    for problem in problems:
        for seed in seeds:
            if setting.id(problem, seed) in store:
                tracker.known()
            else:
                yield _Task(problem, seed)


async def _search(
    policy: Any, verifier: Any, strategy: Any, budget: Budget, checker: Checker, ledger: Ledger | None, task: _Task
) -> Trace:
    problem = task.problem
    result = await search(
        problem.question, policy, verifier, strategy, budget, seed=task.seed, ledger=ledger, context=problem.context
    )
    end = problem.state if result.node is None else result.tree.state(result.node)
    (correct,) = await checker.check(problem, [end])
    return Setting(policy, verifier, strategy, budget).trace(result, problem, correct)
