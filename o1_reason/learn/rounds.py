"""The loop: rounds of search for data, labels, a new reward model and its gate, a new policy and its gate, measures.

    improve(path, rounds)    begin a run or go on with it, until it has so many rounds
    rollback(path, number)   take the rounds after that one out of force

Both take up the thread that calls them, for minutes. From a coroutine: ``asyncio.to_thread``.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import ConfigurationError
from .folders import digests, write_json
from .learner import Learner, resolve_learner
from .plan import Plan, planned
from .record import BEGINNING, GATES, STAGES, Record, Round
from .stages import WORK
from .work import Work


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    rounds   that the run is to have; `round`: the one under way, 0 for the beginning
    stage    under way; `share` of it in [0, 1] is done, None: unknown
    left     seconds until all is done, by what the stages took so far; None: a stage to come was never measured
    line     what the stage last said
    done     the stage is finished, and `line` is what came of it
    """

    round: int
    rounds: int
    stage: str
    share: float | None
    left: float | None
    line: str
    done: bool = False


def improve(
    path: str | Path,
    rounds: int,
    *,
    learner: str | Learner = "embedded",
    scale: str = "small",
    seed: int = 0,
    start: str | Path | None = None,
    plan: Plan | None = None,
    ray: str | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Round]:
    """All rounds of the run in the folder `path`, which has at least `rounds` of them then, the beginning not counted.

    A run that was killed or interrupted goes on where it was; one that has its rounds already is left alone.

    learner   by name, or an object
    scale     how much the beginning is trained, a word of the learner's; the plan's, too
    start     a folder of weights, which the run begins with; None: random weights, trained as much as `scale` says
    plan      of the rounds to come, not of one under way; None: the run's own, at its beginning `planned`

    Raises ConfigurationError for what cannot work, above all for a folder with another run.
    """
    if rounds < 0:
        raise ConfigurationError(f"rounds must be an integer >= 0; got {rounds}")
    record = Record(Path(path))
    who = resolve_learner(learner) if isinstance(learner, str) else learner
    with record.locked():
        name = learner if isinstance(learner, str) else type(learner).__name__
        if plan is None and not record.exists:
            plan = planned(who, scale)
        plan = record.open(name, scale, seed, plan, None if start is None else Path(start).absolute())
        check_weights(record)
        for number in range(rounds + 1):
            _round(record, who, scale, seed, plan, number, rounds, ray, progress)
        return record.rounds()


def check_weights(record: Record) -> None:
    """Raises ConfigurationError if the weights in force are not those that were measured."""
    done = [each for each in record.rounds() if each.finished]
    if done:
        last = done[-1]
        if last.stages["measure"]["files"] != digests(last.folder, last.weights):
            raise ConfigurationError(
                f"the weights in {last.weights} are not those that round {last.number} measured; restore them, or roll "
                f"back: o1-reason rounds rollback {record.path} {max(last.number - 1, 0)}"
            )


def _round(
    record: Record, learner: Learner, scale: str, seed: int, plan: Plan, number: int, rounds: int, ray: str | None,
    progress: Callable[[Progress], None],
) -> None:  # fmt: skip
    folder, plan = record.begin(number, plan)
    for stage in record.round(number).left:
        before, started = record.rounds(), time.monotonic()

        def tell(line: str, share: float | None, done: bool = False, stage: str = stage) -> None:
            left = time_left(before, number, rounds, stage, share, time.monotonic() - started)  # noqa: B023
            progress(Progress(number, rounds, stage, share, left, line, done))

        tell("", None)
        work = Work(record, learner, scale, plan, seed, number, stage, folder, ray, tell)
        found = WORK[stage](work)
        seconds = round(time.monotonic() - started, 3)
        write_json(folder / f"{stage}.json", {"seconds": seconds, "seed": work.seed, **found})
        shutil.rmtree(folder / "unfinished", ignore_errors=True)
        tell(outcome(stage, found), 1.0, True)


def outcome(stage: str, found: Mapping[str, Any]) -> str:
    """What came of a stage, in a line."""
    if stage in GATES.values():
        verdict = "accepted" if found["accepted"] else "rejected"
        return f"{verdict}, {found['candidate']:.1%} against {found['incumbent']:.1%}, p = {found['p']:.2g}"
    if stage == "measure":
        greedy, last = found["greedy"]["accuracy"]["value"], found["curve"][-1]
        searched = f"{last['accuracy']['value']:.0%} at {last['budget']} tokens"
        return f"greedy {greedy:.0%}, searched {searched}, ECE {found['prm']['calibration']['ece']:.3f}"
    rows = ", ".join(f"{count} rows of {name}" for name, count in found.get("rows", {}).items())
    return rows or ", ".join(found["files"])


def time_left(
    known: Sequence[Round], number: int, rounds: int, stage: str, share: float | None, elapsed: float
) -> float | None:
    """Seconds until the last of `rounds` is done: of each stage to come the mean of the times it took in `known`.

    Of the `stage` under way in round `number` what is left of that mean, or, once it tells its `share`, as much more as
    that says after `elapsed` seconds.
    """
    took: dict[str, list[float]] = {}
    for each in known:
        for name, done in each.stages.items():
            took.setdefault(name, []).append(done["seconds"])
    order = STAGES if number else BEGINNING
    later = [*order[order.index(stage) + 1 :], *(name for _ in range(rounds - number) for name in STAGES)]
    if not all(name in took for name in later):
        return None
    rest = sum(fmean(took[name]) for name in later)
    if share:
        return rest + elapsed * (1 - share) / share
    return rest + max(0.0, fmean(took[stage]) - elapsed) if stage in took else None


def rollback(path: str | Path, number: int) -> list[int]:
    """Take the rounds after round `number` out of force; their numbers, the last one first.

    They are kept, under "undone", and held-out problems that their gates have used are not used again. `improve` then
    goes on after round `number`, with other seeds than before.
    """
    record = Record(Path(path))
    record.check()
    with record.locked():
        if not any(each.number == number and each.finished for each in record.rounds()):
            done = ", ".join(str(each.number) for each in record.rounds() if each.finished) or "none"
            raise ConfigurationError(f"there is no finished round {number} in {path}; finished: {done}")
        return record.undo(number)
