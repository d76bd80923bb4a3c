"""What ``o1-reason collect`` is given, and what it makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..budget import Budget
from ..errors import ConfigurationError
from ..protocols import Strategy
from ..resolve import resolve_policy, resolve_verifier
from .collection import collect
from .dataset import LABELS, ROLLED, method_of, rows_of, write_rows
from .files import read_rows
from .labelling import label
from .learner import resolve_learner
from .problems import Checker, GoldChecker, Problem, VerifierChecker, read_problems
from .progress import Progress
from .store import RecordStore
from .traces import TraceStore, problem_of

FORMATS = ("traces", "stepwise", "sft", "preference")


@dataclass(frozen=True, slots=True)
class Source:
    """Problems to search, or traces of searches that are there already."""

    problems: list[Problem] | None
    traces: Path | None
    checker: Checker


def source_of(given: str, policy: str, checker: str | None, seed: int) -> Source:
    """From a file of problems, a file of traces, or ``LEARNER:SPLIT=N``, such as ``embedded:train=500``.

    checker   names an exact verifier of answers. None: the learner's; for a file the gold answers in it, or where it
              has none and the `policy` is the embedded one, its rules

    Raises ConfigurationError for what is none of them, and for the test split, which is not for learning.
    """
    path = Path(given)
    if not path.exists():
        learner, split, n = _parts(given)
        if split == "test":
            raise ConfigurationError("test problems are for measuring; collect from the split train or valid")
        who = resolve_learner(learner)
        problems = [Problem(question) for question in dict.fromkeys(who.problems(split, n, seed))]
        return Source(problems, None, _checker(checker) or VerifierChecker(who.checker()))
    traces = _is_traces(path)
    problems = [problem_of(next(iter(TraceStore(path))))] if traces else list(read_problems(path))
    if checker is None and policy == "embedded" and any(problem.gold is None for problem in problems):
        checker = "embedded:rules"
    return Source(None if traces else problems, path if traces else None, _checker(checker) or GoldChecker())


def _checker(name: str | None) -> Checker | None:
    verifier = resolve_verifier(name)
    return None if verifier is None else VerifierChecker(verifier)


def _parts(given: str) -> tuple[str, str, int]:
    before, _, n = given.rpartition("=")
    learner, _, split = before.rpartition(":")
    if not learner or not split or not n.isdecimal() or not int(n):
        raise ConfigurationError(
            f"there is no file {given}; name a file of problems or of traces, or LEARNER:SPLIT=N, as embedded:train=500"
        )
    return learner, split, int(n)


def _is_traces(path: Path) -> bool:
    return path.suffix != ".txt" and "tree" in next(iter(read_rows(path)), (0, {}))[1]


@dataclass(frozen=True, slots=True)
class Searching:
    """How problems are searched."""

    policy: Any
    verifier: Any
    strategy: Strategy
    budget: Budget
    samples: int
    seed: int
    at_once: int
    ledger: str | None
    ray: str | None


async def make(
    source: Source, out: Path, format: str, how: Searching, *, by: str, solutions: int, rollouts: int,
    progress: Callable[[Progress], None],
) -> int:  # fmt: skip
    """Write `out`; how many rows it has. What was done before a kill is not done again.

    format   "traces", "stepwise" (`by` says how steps are labelled), "sft" or "preference"
    """
    if by not in LABELS:
        raise ConfigurationError(f"label must be one of {', '.join(LABELS)}; got {by!r}")
    if format not in FORMATS:
        raise ConfigurationError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    if format == "stepwise" and by in ROLLED:
        return await _rolled(source, out, how, method_of(by, solutions, rollouts), progress)
    traces = source.traces
    if traces is None:
        traces = out if format == "traces" else out.with_name(f"{out.stem}.traces.jsonl")
        await _searched(source, traces, how, progress)
    elif format == "traces":
        raise ConfigurationError(f"{traces} holds traces already; give another --format")
    if format == "traces":
        return sum(1 for _ in TraceStore(traces))
    kind = by if format == "stepwise" else format
    return await write_rows(rows_of(TraceStore(traces), kind, source.checker), out)


async def _searched(source: Source, traces: Path, how: Searching, progress: Callable[[Progress], None]) -> None:
    done = await collect(
        source.problems or [], how.policy, how.verifier, how.strategy, how.budget, source.checker, TraceStore(traces),
        samples=how.samples, seed=how.seed, concurrency=how.at_once, ledger=how.ledger, ray=how.ray,
        on_progress=progress,
    )  # fmt: skip
    progress(done)


async def _rolled(source: Source, out: Path, how: Searching, method: Any, progress: Callable[[Progress], None]) -> int:
    """Labels by rollouts: the policy's own, from each problem; no search is needed."""
    if source.problems is None:
        raise ConfigurationError("labels by rollouts are made from problems, not from traces; or --label outcomes")
    store = RecordStore(out)
    done = await label(
        source.problems, method, resolve_policy(how.policy), source.checker, store, seed=how.seed,
        concurrency=how.at_once, calls=how.budget.concurrency, ledger=how.ledger, ray=how.ray, on_progress=progress,
    )  # fmt: skip
    progress(done)
    return sum(1 for _ in store)
