"""The audit in a terminal: a bar while it runs, tables at the end."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..errors import ConfigurationError
from . import audit_verifier, read_solutions
from .judge import Judgement
from .metrics import Calibration
from .summary import Audit
from .tables import (
    ONE_REWARD_NOTE,
    RANKING_NOTE,
    calibration_note,
    calibrations,
    facts,
    ranking_rows,
    trial_note,
    trial_rows,
)
from .verdict import percent

WIDTH = 30  # cells of the reliability plot
EIGHTHS = " ▏▎▍▌▋▊▉"
STYLES = {True: "bold green", False: "bold red", None: "bold yellow"}


def audit_file(path: Path, verifier: Any, limit: int | None, console: Console, **settings: Any) -> Audit:
    """`audit_verifier` for the solutions in a file, with a progress bar on `console`.

    The whole file is read and checked before any call is paid for.
    """
    counts = Counter(solution.truth.group for solution in read_solutions(path, limit))
    total, best_of = counts.total(), settings.get("best_of") or 0
    if best_of > max(counts.values(), default=best_of):
        raise ConfigurationError(f"no question in {path} has {best_of} solutions; the most is {max(counts.values())}")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[spent]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, spent="")

        def progress(found: Judgement) -> None:
            bar.update(task, completed=len(found.judged) + found.left_out, spent=_spent(found))

        return asyncio.run(audit_verifier(read_solutions(path, limit), verifier, progress=progress, **settings))


def _spent(found: Judgement) -> str:
    failed = sum(count for count, _ in found.failures.values())
    dollars = "" if found.paid.cost_usd is None else f", ${found.paid.cost_usd:.4f}"
    return f"{found.paid.calls} calls{dollars}" + (f", {failed} failed" if failed else "")


def render(audit: Audit) -> RenderableType:
    """The verdict, and under it the tables that it rests on."""
    return Group(*_parts(audit))


def _parts(audit: Audit) -> Iterator[RenderableType]:
    yield Text(audit.verdict.text, style=STYLES[audit.verdict.worth])
    yield Text()
    lines = Table.grid(padding=(0, 2, 0, 0))
    for name, value in facts(audit):
        lines.add_row(Text(name, style="dim"), Text(value))
    yield lines
    if audit.trial is not None:
        yield _section("Choosing one of n", _table(*trial_rows(audit.trial)), trial_note(audit.trial))
    note = RANKING_NOTE if audit.process else ONE_REWARD_NOTE
    yield _section("Telling right from wrong", _table(*ranking_rows(audit)), note)
    for title, found in calibrations(audit):
        note = f"Bar: share that is right; │: mean score; they should meet. {calibration_note(found)}"
        yield _section(title, reliability(found), note)


def _section(title: str, what: RenderableType, note: str) -> RenderableType:
    return Group(Text(f"\n{title}", style="bold"), Padding(Group(what, Text(note, style="dim")), (0, 0, 0, 2)))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    return table


def reliability(found: Calibration) -> RenderableType:
    """One line a bin: its range, how many, the share that is right as a bar, the mean score as a mark on it."""
    table = _table(["score", "n", "right", ""], [])
    table.columns[3].justify = "left"
    for b in found.bins:
        table.add_row(f"{b.low:.1f}–{b.high:.1f}", str(b.n), percent(b.right), _bar(b.right, b.score))
    return table


def _bar(share: float, mark: float) -> Text:
    eighths = round(share * WIDTH * 8)
    cells = list("█" * (eighths // 8) + EIGHTHS[eighths % 8].strip())
    cells += " " * (WIDTH - len(cells))
    at = min(int(mark * WIDTH), WIDTH - 1)
    bar = Text("".join(cells), style="cyan")
    return Text.assemble(bar[:at], ("│", "bold red"), bar[at + 1 :])
