"""The command line: ``o1-reason solve "4 5 6 10"``, ``o1-reason audit-verifier FILE --verifier NAME``."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from . import __version__, servers
from .budget import Budget
from .driver import search
from .engine import Event
from .errors import ConfigurationError
from .learn import TraceStore, commands, trace_of
from .options import (
    CallsAtOnce,
    LedgerFile,
    MostCalls,
    MostDollars,
    MostNodes,
    MostSeconds,
    MostTokens,
    PolicyName,
    RecordFile,
    Seed,
    StrategyName,
    StrategyOptions,
    VerifierName,
    explained,
)
from .resolve import adapters, resolve_policy, resolve_strategy, resolve_verifier
from .result import Result
from .settings import with_defaults, with_options
from .show import TreeView
from .view import Feed

LINGER = 10.0  # seconds that the page of --live waits for a browser once the search has ended

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"o1-reason {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="And exit.")] = False,
) -> None:
    """o1-style slow thinking: a policy proposes reasoning steps, a verifier scores them, a strategy searches."""


@app.command(
    epilog="""Examples:

    o1-reason solve "4 5 6 10"

    o1-reason solve "1 5 5 5" --strategy mcts --live --view tree.html

    o1-reason solve "Make 40 from 2, 5, 7 and 11" --strategy mcts --tree

    o1-reason solve "1 5 5 5" -s mcts -o simulations=200 --budget-seconds 5 --json

    o1-reason solve "How many r are in strawberry?" -p openai:gpt-5-mini --budget-usd 0.05

    o1-reason solve "..." -p "openai:Qwen/Qwen3-8B?base_url=http://127.0.0.1:8000/v1" -v "openai:gpt-5-mini?as=critic"

Exit code: 0 answered, 1 not answered, 2 wrong usage."""
)
def solve(
    question: Annotated[str, typer.Argument(help="The question; for the embedded reasoner an arithmetic puzzle.")],
    policy: PolicyName = "embedded",
    verifier: VerifierName = None,
    strategy: StrategyName = None,
    option: StrategyOptions = None,
    budget_tokens: MostTokens = None,
    budget_calls: MostCalls = None,
    budget_seconds: MostSeconds = None,
    budget_usd: MostDollars = None,
    budget_nodes: MostNodes = 4096,
    concurrency: CallsAtOnce = 16,
    seed: Seed = 0,
    ledger: LedgerFile = None,
    record: RecordFile = None,
    tree: Annotated[bool, typer.Option("--tree", help="Show the whole search, not only the answer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    page: Annotated[
        Path | None, typer.Option("--view", help="Write a page to explore the search in, too.", dir_okay=False)
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Show the tree in a browser while it grows; the address is printed.")
    ] = False,
    live_port: Annotated[int, typer.Option(help="Of --live, on 127.0.0.1. 0: one that is free.", min=0, max=65535)] = 0,
) -> None:
    """Search for the answer to a question, and show how it was found and what it cost."""
    errors = Console(stderr=True)
    verifier, strategy = with_defaults(policy, verifier, strategy)
    budget = Budget(
        max_calls=budget_calls, max_tokens=budget_tokens, max_seconds=budget_seconds, max_usd=budget_usd,
        max_nodes=budget_nodes, concurrency=concurrency,
    )  # fmt: skip
    view, feed = TreeView(), Feed(question)
    started = time.monotonic()

    def seen(event: Event) -> None:
        view.event(event)
        feed.take(event)

    async def run() -> Result:
        progress = nullcontext() if as_json else Live(
            console=errors, get_renderable=lambda: view.progress(tree), transient=True, refresh_per_second=10,
            vertical_overflow="ellipsis",
        )  # fmt: skip
        with progress, nullcontext() if record is None else TraceStore(record) as store:
            result = await search(question, *parts, budget, seed=seed, ledger=ledger, on_event=seen)
            if store is not None:
                await store.add(trace_of(result, *parts, budget))
        feed.end(result, time.monotonic() - started)
        return result

    def tell(result: Result) -> None:
        seconds = time.monotonic() - started
        if page is not None:
            page.write_text(feed.page(), encoding="utf-8")
        if as_json:
            sys.stdout.write(json.dumps(_data(result, seconds, tree), ensure_ascii=False) + "\n")
            sys.stdout.flush()
        else:
            _print(result, seconds, view if tree else None)

    with explained(errors):
        _check_folder(page)
        searching = with_options(resolve_strategy(strategy), option or [])
        parts = resolve_policy(policy), resolve_verifier(verifier), searching
        result = asyncio.run(_watched(run, feed, live_port, errors, tell) if live else run())
        if not live:
            tell(result)
    raise typer.Exit(0 if result.answered else 1)


async def _watched(
    run: Callable[[], Awaitable[Result]], feed: Feed, port: int, errors: Console, tell: Callable[[Result], None]
) -> Result:
    """Search with a page on loopback that shows it; afterwards the page stays until somebody has seen the end."""
    from .view.live import serving

    async with serving(feed, port) as page:
        errors.print(f"live: {page.url}", style="dim", markup=False, highlight=False, soft_wrap=True)
        try:
            result = await run()
        except BaseException as error:
            feed.fail(str(error) or "interrupted")
            await page.shown(0.5)
            raise
        tell(result)
        with suppress(asyncio.CancelledError):  # there is an answer, whoever does not want to wait for the page
            if not await page.shown(0.5):
                errors.print(f"the page stays until a browser has shown it, or for {LINGER:.0f} s", style="dim")
                await page.shown(LINGER)
    return result


@app.command(
    "audit-verifier",
    epilog="""Examples:

    o1-reason audit-verifier examples/labelled_solutions.jsonl --verifier embedded --html audit.html

    o1-reason audit-verifier gsm8k.json --verifier openai:gpt-5-mini --limit 50 --budget-usd 1 --ledger calls.sqlite

One object a line: question, steps (texts), and what is known of answer, gold or correct, labels (true or false per
step) or first_error, group (of solutions of one question), key (of equal answers). ProcessBench (problem, steps,
label, final_answer_correct) and TRL (prompt, completions, labels) are read, too.

Exit code: 0 audited, whatever the verdict, 1 the verifier failed, 2 wrong usage.""",
)
def audit(
    file: Annotated[Path, typer.Argument(help="Labelled solutions: JSON lines.", exists=True, dir_okay=False)],
    verifier: Annotated[str, typer.Option("--verifier", "-v", help="Adapter to audit, as in solve.")],
    limit: Annotated[int | None, typer.Option(help="Only the first so many solutions.", min=1)] = None,
    prefixes: Annotated[
        bool,
        typer.Option(
            "--prefixes",
            help="Where the verifier gives one reward per state, have it judge the state after every step: shows first "
            "errors and aggregations, and costs as many times more as there are steps. Else whole solutions only.",
        ),
    ] = False,
    batch: Annotated[
        int,
        typer.Option(help="Solutions of one question in one call. A verifier that compares needs more than 1.", min=1),
    ] = 1,
    best_of: Annotated[
        int | None,
        typer.Option(help="The n of the verdict's best-of-n; else what half of the questions allow."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="A step counts as wrong below it; else cross-validated.", min=0, max=1),
    ] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="Most tokens; what the ledger has is free.", min=0)] = None,
    budget_calls: MostCalls = None,
    budget_seconds: MostSeconds = None,
    budget_usd: MostDollars = None,
    concurrency: Annotated[int, typer.Option(help="Verifier calls in flight at once.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of folds, resamples and random orders.")] = 0,
    ledger: Annotated[str | None, typer.Option(help="SQLite file of finished calls: run again to go on.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures, too.", dir_okay=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Tell whether a verifier is worth using, from labelled solutions: above all, whether it beats a majority vote."""
    from .audit import page, terminal

    errors = Console(stderr=True)
    with explained(errors):
        _check_folder(html)
        budget = Budget(
            max_calls=budget_calls, max_tokens=budget_tokens, max_seconds=budget_seconds, max_usd=budget_usd,
            max_nodes=None, concurrency=concurrency,
        )  # fmt: skip
        found = terminal.audit_file(
            file, verifier, limit, errors, budget=budget, batch=batch, prefixes=prefixes, threshold=threshold,
            best_of=best_of, ledger=ledger, seed=seed,
        )  # fmt: skip
        if html is not None:
            html.write_text(page.render(found), encoding="utf-8")
    if as_json:
        sys.stdout.write(json.dumps(found.to_data(), ensure_ascii=False) + "\n")
    else:
        Console(highlight=False).print(terminal.render(found))


app.command(epilog=servers.SERVE_EXAMPLES)(servers.serve)
app.command(epilog=servers.MCP_EXAMPLES)(servers.mcp)
commands.register(app)


@app.command(
    "view",
    epilog="""Examples:

    o1-reason solve "4 5 6 10" --strategy mcts --json --tree > RESULT.json

    o1-reason view RESULT.json --open

    o1-reason view RESULT.json --mermaid

Exit code: 0 done, 1 the file could not be read or written, 2 wrong usage.""",
)
def picture(
    file: Annotated[Path, typer.Argument(help="What solve --json --tree printed.", exists=True, dir_okay=False)],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The page; else FILE with the ending .html.", dir_okay=False)
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart; no page.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Print the tree as text; no page.")] = False,
) -> None:
    """Draw the tree of a search: a page to explore it in, complete in itself, with no network."""
    from .view import flowchart, load, render

    with explained(Console(stderr=True)):
        if (out is not None or open_page) + mermaid + text > 1:
            raise ConfigurationError("--mermaid and --text print and make no page; give one of them, or -o and --open")
        found = load(file)
        if mermaid:
            sys.stdout.write(flowchart(found))
        elif text:
            view = TreeView()
            for event in found.events():
                view.event(event)
            Console(highlight=False).print(view.render(found.chosen))
        else:
            page = out or file.with_suffix(".html")
            _check_folder(page)
            if page.exists() and page.samefile(file):
                raise ConfigurationError(f"the page would replace {file}; name another file with -o")
            page.write_text(render(found), encoding="utf-8")
            typer.echo(f"wrote {page}")
            if open_page:
                typer.launch(page.absolute().as_uri())


def _check_folder(file: Path | None) -> None:
    if file is not None and not file.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder {file.parent} to write {file.name} to; make it first")


@app.command("adapters")
def list_adapters() -> None:
    """List the adapters that --policy and --verifier can name."""
    for name in adapters():
        typer.echo(name)


def _print(result: Result, seconds: float, view: TreeView | None) -> None:
    console = Console(highlight=False)
    if view is not None:
        console.print(view.render(result.node))
        console.print()
    elif result.text:
        console.print(Text(result.text, style="dim"))
    if result.answered:
        console.print(Text.assemble(("answer      ", "dim"), (result.answer or "", "bold green")))
    elif result.answer is not None:
        console.print(Text.assemble("no answer passed the check; the best attempt was ", (result.answer, "bold")))
    else:
        console.print(f"no answer ({result.stop})")
    if not result.answered and result.stop in ("done", "exhausted"):
        console.print("try a wider search: --strategy mcts, or --option width=8", style="dim")
    if result.answered and result.confidence is not None:
        console.print(Text.assemble(("confidence  ", "dim"), f"{result.confidence:.2f}"))
    policy, checks = result.policy_usage, result.verifier_usage
    dollars = "" if result.usage.cost_usd is None else f", ${result.usage.cost_usd:.4f}"
    console.print(
        Text.assemble(
            ("cost        ", "dim"),
            f"{policy.completion_tokens} tokens generated, {policy.prompt_tokens + checks.tokens} read{dollars}",
        )
    )
    calls = f"{policy.calls} policy and {checks.calls} verifier calls"
    nodes = f"{len(result.tree) - 1} nodes, {calls}, {seconds:.2f} s, {result.stop}"
    console.print(Text.assemble(("search      ", "dim"), nodes))


def _data(result: Result, seconds: float, tree: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "answer": result.answer,
        "confidence": result.confidence,
        "stop": result.stop,
        "text": result.text,
        "ranking": [list(entry) for entry in result.ranking],
        "usage": result.usage.to_data(),
        "policy_usage": result.policy_usage.to_data(),
        "verifier_usage": result.verifier_usage.to_data(),
        "nodes": len(result.tree),
        "node": result.node,
        "seconds": round(seconds, 3),
    }
    if tree:
        data["tree"] = result.tree.to_data()
    return data


if __name__ == "__main__":
    app()
