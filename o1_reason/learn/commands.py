"""The commands of the learning loop: ``collect``, ``train prm``, ``train policy``, ``improve``, ``rounds``.

Nothing heavy is imported before a command runs.
"""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..options import (
    CallsAtOnce,
    LedgerFile,
    MostCalls,
    MostDollars,
    MostSeconds,
    MostTokens,
    PolicyName,
    StrategyName,
    StrategyOptions,
    VerifierName,
    explained,
)
from .round_commands import RAY_HELP, STEP_LABELS, Seed, improving, rounding

Model = Annotated[
    str, typer.Option("--model", "-m", help="An adapter that learns (embedded), or a name or folder of transformers.")
]
Start = Annotated[
    Path | None, typer.Option(help="Folder of weights to start from; else the model's own.", file_okay=False)
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the weights.", file_okay=False)]
Data = Annotated[Path, typer.Argument(help="What o1-reason collect wrote.", exists=True, dir_okay=False)]
TrainerSettings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the trainer, NAME=VALUE; repeatable.")
]

COLLECT_EXAMPLES = """Examples:

    o1-reason collect embedded:train=500 --out traces.jsonl

    o1-reason collect traces.jsonl --format sft --out solutions.jsonl

    o1-reason collect embedded:train=500 --format stepwise --label mips --out steps.jsonl

    o1-reason collect gsm8k.jsonl -p openai:gpt-5-mini -s best_of_n -o n=8 --budget-usd 0.01 --ledger calls.sqlite --out traces.jsonl

Killed or interrupted, the same command goes on where it was. Exit code: 0 done, 1 nothing came of it, 2 wrong usage."""  # noqa: E501

PRM_EXAMPLES = """Examples:

    o1-reason train prm steps.jsonl --out weights

    o1-reason train prm traces.jsonl --objective td --set gamma=0.99 --out weights

    o1-reason train prm steps.jsonl --model Qwen/Qwen2.5-Math-1.5B --set epochs=1 --out prm

Exit code: 0 trained, 1 failed, 2 wrong usage."""

POLICY_EXAMPLES = """Examples:

    o1-reason train policy solutions.jsonl --out weights

    o1-reason train policy traces.jsonl --method grpo --set steps=100 --out weights

    o1-reason train policy preferences.jsonl --method dpo --model Qwen/Qwen2.5-1.5B-Instruct --out policy

Exit code: 0 trained, 1 failed, 2 wrong usage."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    training = typer.Typer(no_args_is_help=True, help="Train a reward model or a policy on collected data.")
    training.command("prm", epilog=PRM_EXAMPLES)(prm)
    training.command("policy", epilog=POLICY_EXAMPLES)(policy)
    app.command("collect", epilog=COLLECT_EXAMPLES)(collect)
    app.add_typer(training, name="train")
    improving(app)
    app.add_typer(rounding(), name="rounds")


def collect(
    source: Annotated[
        str,
        typer.Argument(
            help="Problems: a file (.txt, a question a line; .jsonl or .parquet with question and gold), or "
            "LEARNER:SPLIT=N, such as embedded:train=500. Or a file of traces, to be turned into another format."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write.", dir_okay=False)],
    format: Annotated[
        str, typer.Option("--format", "-f", help="traces (whole searches), stepwise, sft or preference.")
    ] = "traces",
    label: Annotated[str, typer.Option(help=f"For stepwise. {STEP_LABELS}")] = "mips",
    solutions: Annotated[int, typer.Option(help="Labelled per problem; of omega_prm searches.", min=1)] = 4,
    rollouts: Annotated[int, typer.Option(help="From each step that is labelled.", min=1)] = 8,
    policy: PolicyName = "embedded",
    verifier: VerifierName = None,
    strategy: StrategyName = None,
    option: StrategyOptions = None,
    checker: Annotated[
        str | None,
        typer.Option(help="Exact verifier of answers; else the gold answers in the file, or the learner's own check."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Searches of each problem.", min=1)] = 1,
    budget_tokens: MostTokens = None,
    budget_calls: MostCalls = None,
    budget_seconds: MostSeconds = None,
    budget_usd: MostDollars = None,
    at_once: Annotated[int, typer.Option(help="Searches at the same time.", min=1)] = 4,
    concurrency: CallsAtOnce = 16,
    seed: Seed = 0,
    ledger: LedgerFile = None,
    ray: Annotated[str | None, typer.Option("--ray", help=RAY_HELP)] = None,
) -> None:
    """Search many problems, and keep what is found as training data. Budgets are those of one search."""
    from ..budget import Budget
    from ..resolve import resolve_strategy
    from ..settings import with_defaults, with_options
    from .shown import collecting
    from .sources import Searching, make, source_of

    errors = Console(stderr=True, emoji=False)
    with explained(errors):
        verifier, strategy = with_defaults(policy, verifier, strategy)
        budget = Budget(
            max_calls=budget_calls, max_tokens=budget_tokens, max_seconds=budget_seconds, max_usd=budget_usd,
            concurrency=concurrency,
        )  # fmt: skip
        searching = with_options(resolve_strategy(strategy), option or [])
        how = Searching(policy, verifier, searching, budget, samples, seed, at_once, ledger, ray)
        found = source_of(source, policy, checker, seed)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with collecting(errors, f"collect {format}") as progress:
            work = make(found, out, format, how, by=label, solutions=solutions, rollouts=rollouts, progress=progress)
            rows = asyncio.run(work)
        typer.echo(f"{rows} rows in {out}")
    raise typer.Exit(0 if rows else 1)


def prm(
    data: Data,
    out: Out,
    model: Model = "embedded",
    objective: Annotated[
        str,
        typer.Option(
            help="classification (a step is right or wrong), regression (the label is a probability), or td (value "
            "iteration over the trees of traces)."
        ),
    ] = "regression",
    start: Start = None,
    set_: TrainerSettings = None,
    seed: Seed = 0,
) -> None:
    """Train a process reward model on labelled steps, or on traces."""
    from .shown import training
    from .training import settings_of, train_prm

    errors = Console(stderr=True, emoji=False)
    with explained(errors), training(errors, "train reward model") as report:
        found = train_prm(
            data, model, out, objective=objective, start=start, seed=seed, settings=settings_of(set_ or []),
            report=report,
        )  # fmt: skip
    typer.echo(json.dumps(found, default=str))


def policy(
    data: Data,
    out: Out,
    model: Model = "embedded",
    method: Annotated[
        str, typer.Option(help="sft (on solutions), dpo (on preferences) or grpo (on problems of any rows).")
    ] = "sft",
    start: Start = None,
    verifier: Annotated[
        str | None, typer.Option("--verifier", "-v", help="Step rewards for grpo of a transformers model.")
    ] = None,
    set_: TrainerSettings = None,
    seed: Seed = 0,
) -> None:
    """Train a policy on what searches found."""
    from .shown import training
    from .training import settings_of, train_policy

    errors = Console(stderr=True, emoji=False)
    with explained(errors), training(errors, "train policy") as report:
        found = train_policy(
            data, model, out, method=method, start=start, seed=seed, settings=settings_of(set_ or []),
            report=report, verifier=verifier,
        )  # fmt: skip
    typer.echo(json.dumps(found, default=str))
