"""Options that several commands have, and how errors reach the user of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .errors import ConfigurationError, O1ReasonError
from .strategies import STRATEGIES


class LogLevel(StrEnum):
    warning = "warning"
    info = "info"
    debug = "debug"


PolicyName = Annotated[
    str, typer.Option("--policy", "-p", help="Adapter that proposes steps, ADAPTER:MODEL?setting=value&...")
]
VerifierName = Annotated[
    str | None,
    typer.Option(
        "--verifier",
        "-v",
        help='Adapter that scores steps; "none" for none, which is also the default with another policy than the '
        'embedded one. "embedded" is the reward model alone.',
    ),
]
StrategyName = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        "-s",
        help=f"One of {', '.join(STRATEGIES)}. Default: beam with a verifier, self_consistency without.",
    ),
]
StrategyOptions = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="A setting of the strategy, NAME=VALUE; repeatable.")
]
MostTokens = Annotated[int | None, typer.Option("--budget-tokens", help="Most tokens, prompts included.", min=0)]
MostCalls = Annotated[int | None, typer.Option("--budget-calls", help="Most model calls.", min=0)]
MostSeconds = Annotated[float | None, typer.Option("--budget-seconds", help="Most seconds.", min=0)]
MostDollars = Annotated[float | None, typer.Option("--budget-usd", help="Most dollars.", min=0)]
MostNodes = Annotated[int, typer.Option("--budget-nodes", help="Most nodes of the tree.", min=0)]
CallsAtOnce = Annotated[int, typer.Option("--concurrency", help="Model calls in flight at once.", min=1)]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same search.")]
LedgerFile = Annotated[
    str | None, typer.Option("--ledger", help="SQLite file of finished calls: none is ever paid twice.")
]
RecordFile = Annotated[
    Path | None,
    typer.Option(
        "--record", help="Add the whole search to this file of traces, to learn from (o1-reason train).", dir_okay=False
    ),
]

LOOPBACK = "127.0.0.1"
ApiKeys = Annotated[
    list[str] | None,
    typer.Option(help="Repeatable; in the environment separated by blanks.", envvar="O1_REASON_API_KEYS"),
]
SearchesAtOnce = Annotated[int, typer.Option(help="Searches at once.", min=1)]
SearchesWaiting = Annotated[int, typer.Option(help="Searches that may wait; beyond them more are refused.", min=0)]
MostBytes = Annotated[int, typer.Option(help="Most bytes of a request's body.", min=1)]
Grace = Annotated[float, typer.Option(help="Seconds that running searches have to end on SIGTERM.", min=0)]


@contextmanager
def explained(errors: Console) -> Iterator[None]:
    """Errors become a line for the user and an exit code."""
    try:
        yield
    except ConfigurationError as error:
        errors.print(f"[bold red]cannot do that:[/] {escape(str(error))}")
        raise typer.Exit(2) from error
    except (O1ReasonError, OSError) as error:
        errors.print(f"[bold red]{type(error).__name__}:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        errors.print("interrupted; what a --ledger holds is not paid for again")
        raise typer.Exit(130) from None
