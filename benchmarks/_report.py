"""What the benchmarks share: tables, promises, and the exit status that says whether all were kept."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


class Report:
    """Prints tables as they come, then the promises; `exit` leaves with status 1 if one was broken."""

    def __init__(self, width: int = 118) -> None:
        self._console = Console(width=None if sys.stdout.isatty() else width, highlight=False)
        self._promises: list[tuple[bool, str]] = []

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
        """One table; the first column is text, the others are numbers."""
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
        for row in rows:
            table.add_row(*row)
        self._console.print(table)
        if note:
            self._console.print(f"[dim]{note}[/dim]", soft_wrap=True)
        self._console.print()

    def promise(self, kept: bool, text: str) -> None:
        """A line that can fail."""
        self._promises.append((kept, text))

    def exit(self) -> None:
        """Print the promises and leave."""
        for kept, text in self._promises:
            mark = "[green]PASS[/green]" if kept else "[red]FAIL[/red]"
            self._console.print(f"{mark}  {text}", soft_wrap=True)
        sys.exit(0 if all(kept for kept, _ in self._promises) else 1)


def parse_quick(description: str | None) -> bool:
    """The one option of these programs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller trees")
    return parser.parse_args().quick
