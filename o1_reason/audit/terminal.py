"""The audit in a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

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
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
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
