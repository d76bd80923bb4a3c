"""The commands that serve the reasoner: ``o1-reason serve``, ``o1-reason mcp``."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .budget import Budget
from .errors import ConfigurationError
from .ledger import resolve_ledger
from .options import (
    LOOPBACK,
    ApiKeys,
    CallsAtOnce,
    Grace,
    LedgerFile,
    LogLevel,
    MostBytes,
    MostCalls,
    MostDollars,
    MostNodes,
    MostSeconds,
    MostTokens,
    PolicyName,
    RecordFile,
    SearchesAtOnce,
    SearchesWaiting,
    Seed,
    StrategyName,
    StrategyOptions,
    VerifierName,
    explained,
)

SERVE_EXAMPLES = """Examples:

    o1-reason serve

    o1-reason serve --policy openai:gpt-5-mini --budget-usd 0.05 --port 9000

    O1_REASON_API_KEYS="key1 key2" o1-reason serve --models models.toml --host 0.0.0.0

Then any OpenAI client works with base_url http://127.0.0.1:8000/v1 and the model reasoner/embedded. The budget is that
of one request, and the most a request may ask for. docs/serve.md tells the rest."""

MCP_EXAMPLES = """Examples:

    o1-reason mcp

    o1-reason mcp --policy openai:gpt-5-mini --budget-usd 0.05

    o1-reason mcp --http --port 8001

A host that speaks MCP starts the first two itself: give it the command o1-reason and the argument mcp. With --http it
finds the server at http://127.0.0.1:8001/mcp. The budget is that of one call, and the most a call may ask for.
docs/mcp.md tells the rest."""


def serve(
    policy: PolicyName = "embedded",
    verifier: VerifierName = None,
    strategy: StrategyName = None,
    option: StrategyOptions = None,
    name: Annotated[str | None, typer.Option(help="Serve it as reasoner/NAME; else after the policy.")] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="TOML file of several models, in place of the options above.", envvar="O1_REASON_MODELS"),
    ] = None,
    budget_tokens: MostTokens = None,
    budget_calls: MostCalls = None,
    budget_seconds: MostSeconds = 300,
    budget_usd: MostDollars = None,
    budget_nodes: MostNodes = 4096,
    concurrency: CallsAtOnce = 16,
    seed: Seed = 0,
    ledger: LedgerFile = None,
    record: RecordFile = None,
    host: Annotated[str, typer.Option(help="Address; any but a loopback one needs API keys.")] = LOOPBACK,
    port: Annotated[int, typer.Option(help="0: one that is free.", min=0, max=65535)] = 8000,
    api_key: ApiKeys = None,
    searches: SearchesAtOnce = 8,
    queue: SearchesWaiting = 64,
    body_bytes: MostBytes = 1 << 20,
    cors_origin: Annotated[list[str] | None, typer.Option(help="Web origin that may call; repeatable.")] = None,
    live: Annotated[
        int,
        typer.Option(help="Searches, the latest, that can be looked at in a browser at /live; 0: none.", min=0),
    ] = 16,
    grace: Grace = 30,
    log_level: Annotated[LogLevel, typer.Option(help="What to log.")] = LogLevel.info,
) -> None:
    """Serve the reasoner by OpenAI's chat completions and responses APIs, with searches to watch at /live."""
    from .learn import TraceStore
    from .serve import models as served
    from .serve import server

    budget = Budget(
        max_calls=budget_calls, max_tokens=budget_tokens, max_seconds=budget_seconds, max_usd=budget_usd,
        max_nodes=budget_nodes, concurrency=concurrency,
    )  # fmt: skip
    with explained(Console(stderr=True)):
        if models is not None:
            offered = served.load(models, budget)
        else:
            offered = [served.named(policy, verifier, strategy, option or [], budget, name)]
        with nullcontext() if record is None else TraceStore(record) as store:
            server.run(
                offered, host=host, port=port, grace=grace, seed=seed, ledger=ledger, record=store,
                log_level=log_level.value, keys=tuple(api_key or ()), searches=searches, queue=queue,
                body_bytes=body_bytes, cors_origins=tuple(cors_origin or ()), live=live,
            )  # fmt: skip


def mcp(
    policy: PolicyName = "embedded",
    verifier: VerifierName = None,
    strategy: StrategyName = None,
    option: StrategyOptions = None,
    budget_tokens: MostTokens = None,
    budget_calls: MostCalls = None,
    budget_seconds: Annotated[
        float, typer.Option(help="Most seconds. Many hosts give a call up after 60.", min=0)
    ] = 50,
    budget_usd: MostDollars = None,
    budget_nodes: MostNodes = 4096,
    concurrency: CallsAtOnce = 16,
    seed: Seed = 0,
    ledger: LedgerFile = None,
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP, not standard input and output.")] = False,
    host: Annotated[str, typer.Option(help="With --http: address; any but a loopback one needs API keys.")] = LOOPBACK,
    port: Annotated[int, typer.Option(help="With --http. 0: one that is free.", min=0, max=65535)] = 8001,
    api_key: ApiKeys = None,
    searches: SearchesAtOnce = 8,
    queue: SearchesWaiting = 64,
    body_bytes: MostBytes = 1 << 20,
    grace: Grace = 30,
    log_level: Annotated[LogLevel, typer.Option(help="What to log, on standard error.")] = LogLevel.warning,
) -> None:
    """Serve the reasoner as tools of the Model Context Protocol (MCP), for agents of any other stack."""
    from .serve import models as served

    budget = Budget(
        max_calls=budget_calls, max_tokens=budget_tokens, max_seconds=budget_seconds, max_usd=budget_usd,
        max_nodes=budget_nodes, concurrency=concurrency,
    )  # fmt: skip
    with explained(Console(stderr=True)):
        try:
            from . import mcp_server
        except ImportError as error:
            raise ConfigurationError(f"serving MCP needs {error.name}: pip install 'o1-reason[mcp]'") from error
        mcp_server.run(
            served.named(policy, verifier, strategy, option or [], budget), seed=seed, ledger=resolve_ledger(ledger),
            address=(host, port) if http else None, keys=tuple(api_key or ()), searches=searches, queue=queue,
            body_bytes=body_bytes, grace=grace, log_level=log_level.value,
        )  # fmt: skip
