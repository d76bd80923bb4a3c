"""What each stage of a round does. A stage returns what is to be recorded of it; what it writes may be written anew."""

import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from ..budget import Budget
from ..errors import ConfigurationError, PolicyError
from ..loop import Loop
from .collection import collect as search_all
from .dataset import READ, arrange, method_of, rows_of, write_rows
from .evaluate import answers, curve, greedy, judge
from .folders import digests, gather, whole
from .gate import check_size, compare
from .labelling import label as label_all
from .problems import Problem, VerifierChecker
from .progress import Progress
from .record import GATES, Record, weights_of
from .store import RecordStore
from .traces import TraceStore, problem_of
from .work import Work

Found = dict[str, Any]
T = TypeVar("T")


def _wait(work: Coroutine[Any, Any, T]) -> T:
    """Also where an event loop runs already."""
    with Loop() as loop:
        return loop.run(work)


def begin(work: Work) -> Found:
    """Random weights, and a first policy and reward model; or those that the run is to start from."""
    if start := work.record.settings.get("start"):
        source = Path(start["folder"])
        if weights_of(source) != start["files"]:
            raise ConfigurationError(f"the weights in {source} changed since the run began; restore them")
        gather(work.folder / "weights", source, source, shutil.copy2)
        return _files(work, "weights")
    with whole(work.folder / "weights") as folder:
        work.learner.begin(folder, seed=work.seed, scale=work.scale, report=work.line)
    return _files(work, "weights")


def collect(work: Work) -> Found:
    """Search training problems with what is in force."""
    plan, who = work.plan, work.learner
    questions = who.problems("train", plan.problems, work.seed)
    if overlap := set(questions) & kept_apart(work.record):
        raise ConfigurationError(
            f"{len(overlap)} training problems are held out, {min(overlap)!r} among them; the learner's splits have to "
            "have no problem in common"
        )
    store = TraceStore(work.scratch / "traces.jsonl")
    done = _wait(
        search_all(
            [Problem(question) for question in dict.fromkeys(questions)],
            who.policy(work.before),
            who.verifier(work.before),
            work.strategy,
            Budget(max_tokens=plan.tokens),
            VerifierChecker(who.checker()),
            store,
            samples=plan.tries,
            seed=work.seed,
            on_progress=work.progress,
            ray=work.ray,
        )
    )
    _all_done(done)
    rows = arrange(store.path, work.folder / "traces.jsonl")
    right = sum(bool(trace["correct"]) for trace in TraceStore(work.folder / "traces.jsonl"))
    return {"rows": {"traces.jsonl": rows}, "right": right, **_files(work, "traces.jsonl")}


def label(work: Work) -> Found:
    """Data for the trainers: labelled steps, and solutions or preferences. TD and GRPO read the traces themselves."""
    plan, who, folder = work.plan, work.learner, work.folder
    checker = VerifierChecker(who.checker())
    traces = TraceStore(folder / "traces.jsonl")
    rows: dict[str, int] = {}

    async def steps() -> int:
        if plan.label in READ:
            return await write_rows(rows_of(traces, plan.label, checker), folder / "steps.jsonl")
        problems = [problem_of(trace) for trace in traces]
        store = RecordStore(work.scratch / "steps.jsonl")
        method = method_of(plan.label, plan.solutions, plan.rollouts)
        done = await label_all(
            list(dict.fromkeys(problems)), method, who.policy(work.before), checker, store, seed=work.seed,
            on_progress=work.progress, ray=work.ray,
        )  # fmt: skip
        _all_done(done)
        return arrange(store.path, folder / "steps.jsonl")

    async def both() -> None:
        if plan.objective != "td":
            rows["steps.jsonl"] = await steps()
        if plan.method != "grpo":
            kind = "preference" if plan.method == "dpo" else "sft"
            rows["policy.jsonl"] = await write_rows(rows_of(traces, kind, checker), folder / "policy.jsonl")

    _wait(both())
    for name, count in rows.items():
        if not count:
            raise ConfigurationError(f"no row for {name} came out of the searches; give more problems or more tokens")
    return {"rows": rows, **_files(work, *rows)}


def _all_done(done: Progress) -> None:
    """What failed has to be done by another run: a round's data is whole."""
    if done.failures:
        first = done.failures[0]
        raise PolicyError(
            f"{len(done.failures)} problems failed, {first.question!r} with: {first.error}; run again to go on with "
            "them"
        )


def train_prm(work: Work) -> Found:
    data = work.folder / ("traces.jsonl" if work.plan.objective == "td" else "steps.jsonl")
    start = _start(work, work.before)
    with whole(work.folder / "prm") as out:
        told = work.learner.train_prm(
            data, start, out, objective=work.plan.objective, seed=work.seed, report=work.line, **work.plan.prm
        )
    return {"training": told, **_files(work, "prm")}


def train_policy(work: Work) -> Found:
    data = work.folder / ("traces.jsonl" if work.plan.method == "grpo" else "policy.jsonl")
    start = _start(work, work.in_force("prm"))
    with whole(work.folder / "policy") as out:
        told = work.learner.train_policy(
            data, start, out, method=work.plan.method, seed=work.seed, report=work.line, **work.plan.policy
        )
    return {"training": told, **_files(work, "policy")}


def _start(work: Work, prm: Path) -> Path:
    start = work.scratch / "start"
    gather(start, work.before, prm)
    return start


def _files(work: Work, *names: str) -> Found:
    return {"files": digests(work.folder, *(work.folder / name for name in names))}


def gate_prm(work: Work) -> Found:
    """The new reward model against the one in force, both with the policy in force."""
    return _gate(work, (work.before, work.folder / "prm"), (work.before, work.before))


def gate_policy(work: Work) -> Found:
    """The new policy against the one in force, both with the reward model that came out of the gate before."""
    prm = work.in_force("prm")
    return _gate(work, (work.folder / "policy", prm), (work.before, prm))


def _gate(work: Work, candidate: tuple[Path, Path], incumbent: tuple[Path, Path]) -> Found:
    """A policy's folder and a reward model's, against others'."""
    plan = work.plan
    questions, shared = held_out(work, plan.gate_problems)
    alpha = plan.alpha / 2**shared
    check_size(len(questions), alpha)
    budget, total = Budget(max_tokens=plan.gate_tokens), 2 * len(questions) * plan.gate_tries

    async def both() -> Found:
        sides = []
        for k, pair in enumerate((candidate, incumbent)):
            side, before = work.side(*pair, plan.gate_tries), k * total // 2
            sides.append(
                await answers(
                    questions, side, work.strategy, budget, lambda done, _, b=before: work.count(b + done, total)
                )
            )
        return compare(*sides, alpha=alpha, budget=plan.gate_tokens).to_data()

    return {**_wait(both()), "questions": questions, "shared": shared}


def held_out(work: Work, n: int) -> tuple[list[str], int]:
    """`n` held-out problems for a gate, and how many earlier gates have used some of them.

    Fresh ones, which no gate has used, as long as there are enough. What earlier gates decided may have shaped the
    candidate: for each of their 2^m outcomes it may be another one, and with the level divided by 2^m one of these
    passes by chance no more often than alpha says (the union bound). Sampling is anew in any case.
    """
    gates = gates_of(work.record)
    used = set().union(*gates)
    try:
        drawn = work.learner.problems("valid", n + len(used), work.seed)
    except ConfigurationError:  # there are not so many
        drawn = []
    fresh = [question for question in dict.fromkeys(drawn) if question not in used][:n]
    if len(fresh) == n:
        return fresh, 0
    drawn = list(dict.fromkeys(work.learner.problems("valid", n, work.seed)))
    return drawn, sum(not gate.isdisjoint(drawn) for gate in gates)


def gates_of(record: Record) -> list[set[str]]:
    """The problems of each gate so far, those of rounds that were rolled back included."""
    rounds = (*record.rounds(), *record.undone())
    return [set(each.stages[name]["questions"]) for each in rounds for name in GATES.values() if name in each.stages]


def kept_apart(record: Record) -> set[str]:
    """Problems that must be in no training data."""
    first = record.round(0).stages["measure"]["questions"]
    return set(first).union(*gates_of(record))


def measure(work: Work) -> Found:
    """Settle what is in force, and measure it on test problems, the same for all rounds. Nothing is decided by it."""
    weights, plan = work.folder / "weights", work.plan
    if work.number:
        gather(weights, work.in_force("policy"), work.in_force("prm"))
    files = digests(work.folder, weights)
    how = {"problems": plan.measure_problems, "tokens": list(plan.measure_tokens), "strategy": repr(work.strategy)}
    kept = {"files": files, "how": how}
    if work.number:
        last = work.record.round(work.number - 1).stages["measure"]
        if last["files"] == files and last["how"] == how:  # the same weights have the same figures
            return {**{name: last[name] for name in ("questions", "greedy", "curve", "prm")}, **kept}
    questions = work.learner.problems("test", plan.measure_problems, work.seed_of("measure"))
    return {"questions": questions, **_wait(_measures(work, questions, weights)), **kept}


async def _measures(work: Work, questions: list[str], weights: Path) -> Found:
    side, budgets = work.side(weights, weights), work.plan.measure_tokens
    searches = len(questions) * (2 + len(budgets))
    solver = getattr(work.learner, "solver", lambda: None)()

    def after(parts: int) -> Callable[[int, int], None]:
        return lambda done, _: work.count(done + parts * len(questions), searches)

    alone = await greedy(questions, side, after(0))
    points = await curve(questions, side, work.strategy, budgets, after(1))
    judged = await judge(questions, side, solver, progress=after(1 + len(budgets)))
    return {"greedy": alone.to_data(), "curve": [one.to_data() for one in points], "prm": judged.to_data()}


WORK: dict[str, Callable[[Work], Found]] = {
    "begin": begin,
    "collect": collect,
    "label": label,
    "train_prm": train_prm,
    "gate_prm": gate_prm,
    "train_policy": train_policy,
    "gate_policy": gate_policy,
    "measure": measure,
}
