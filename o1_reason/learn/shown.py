"""How the commands of the learning loop show how far they are, and what came of it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from .progress import Progress as Done
from .record import BEGINNING, STAGES, Round
from .report import ROLES, duration, rounds_table, summary, verdict
from .rounds import Progress as Far

NAMES = {"train_prm": "train reward model", "gate_prm": "gate reward model", "begin": "first models"}


def _bar(console: Console) -> Progress:
    """Transient: what stays on the screen is the outcome. Without a terminal there is none."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[far]}", markup=False),
        TextColumn("{task.fields[left]}", style="dim"), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


def left_text(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} left"


@contextmanager
def collecting(console: Console, what: str) -> Iterator[Any]:
    """A function for what `collect` and `label` tell while they run. Failures are named at the end."""
    latest = Done()
    with _bar(console) as bar:
        task = bar.add_task(what, far="", left="")

        def show(done: Done) -> None:
            nonlocal latest
            latest = done
            finished = done.known + done.added + len(done.failures)
            far = f"{finished} of {done.total}" if done.total else str(finished)
            if done.judged:
                far += f", {done.right} of {done.judged} right"
            if done.rollouts:
                far += f", {done.rollouts} rollouts"
            bar.update(task, total=done.total, completed=finished, far=far, left=left_text(done.seconds_left))

        yield show
    for failure in latest.failures[:3]:
        console.print(f"[bold]failed:[/] {escape(failure.question[:60])}: {escape(failure.error)}")
    if latest.failures:
        console.print(f"{len(latest.failures)} of {latest.total} failed; run again to try them again")


@contextmanager
def training(console: Console, what: str) -> Iterator[Any]:
    """A function for the lines that a trainer says."""
    with _bar(console) as bar:
        task = bar.add_task(what, total=None, far="", left="")
        yield lambda line: bar.update(task, far=line)


@contextmanager
def improving(console: Console) -> Iterator[Any]:
    """A function for what `improve` tells; a line stays for each stage that is done."""
    under_way, line = None, ""
    started = time.monotonic()
    with _bar(console) as bar:
        task = bar.add_task("", far="", left="")

        def show(far: Far) -> None:
            nonlocal under_way, line, started
            at = (far.round, far.stage)
            if at != under_way:
                under_way, line, started = at, "", time.monotonic()
            line = far.line.strip() or line
            if far.done:
                took = duration(time.monotonic() - started)
                console.print(f"{_place(*at)}, {took}: {line}", style="dim", highlight=False, markup=False)
            order = STAGES if far.round else BEGINNING
            before = len(BEGINNING) + (far.round - 1) * len(STAGES) if far.round else 0
            total = len(BEGINNING) + far.rounds * len(STAGES)
            bar.update(
                task, description=escape(_place(*at)), total=total, far=line[:60],
                completed=before + order.index(far.stage) + (far.share or 0),
                left=left_text(far.left) or _stage_left(far.share, time.monotonic() - started),
            )  # fmt: skip

        yield show


def _stage_left(share: float | None, elapsed: float) -> str:
    """For as long as nobody knows what the stages to come will take."""
    return f"{duration(elapsed * (1 - share) / share)} left of this stage" if share else ""


def _place(number: int, stage: str) -> str:
    name = NAMES.get(stage, stage.replace("_", " "))
    return f"round {number}: {name}" if number else f"beginning: {name}"


def rounds_shown(rounds: Sequence[Round]) -> Table | Text:
    """The rounds as a table, or that there are none yet."""
    measured = [each for each in rounds if each.finished]
    if not measured:
        return Text(summary(measured))
    head, rows = rounds_table(measured)
    table = Table(*head, box=None, pad_edge=False, caption=summary(measured), caption_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def rounds_data(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The rounds in plain JSON types."""
    return [
        {
            "round": each.number,
            "finished": each.finished,
            "weights": str(each.weights),
            "accepted": {role: each.accepted(role) for role in ROLES},
            "gates": {role: found.to_data() for role in ROLES if (found := verdict(each, role))},
            "seconds": round(each.seconds, 3),
            **{name: each.stages["measure"][name] for name in ("greedy", "curve", "prm") if each.finished},
        }
        for each in rounds
    ]
