"""The commands ``improve`` and ``rounds``: a run of the learning loop, and what came of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..options import explained

if TYPE_CHECKING:
    from .plan import Plan
    from .record import Record

STEP_LABELS = (
    "How steps are labelled: mips or math_shepherd (rollouts from each step of solutions that the policy samples), "
    "omega_prm (binary search for the first error), or from the searches alone: outcomes (share of right ends) or "
    "values (what MCTS backed up)."
)
RAY_HELP = "Address of a Ray cluster, auto, or local; else this machine."
Seed = Annotated[int, typer.Option(help="Decides all that is drawn.")]
Run = Annotated[Path, typer.Argument(help="Folder of the run, improve's --out.", file_okay=False)]

IMPROVE_EXAMPLES = """Examples:

    o1-reason improve --out run --rounds 3

    o1-reason improve --out run --rounds 5 --method dpo

    o1-reason improve --out run --scale ship --seed 1 --rounds 4 --report run.html

    o1-reason improve --out more --start run/rounds/004/weights

    o1-reason improve --out qwen --model "transformers:Qwen/Qwen3-0.6B?problems=gsm8k.jsonl&solution_tokens=512"

The first begins with random weights and makes three rounds: search problems, label steps, train a reward model, let it
in if it beats the old one on held-out problems, train a policy, likewise. The second goes on to five, with another
method. --start begins with the weights of another run. Killed or interrupted, the same command goes on where it was.
Options that are left out are as they were, at the beginning as --scale says. Weights: run/rounds/003/weights. Exit
code: 0 done, 1 failed, 2 wrong usage."""


def improving(app: typer.Typer) -> None:
    """Add ``improve`` to `app`."""
    app.command("improve", epilog=IMPROVE_EXAMPLES)(improve)


def rounding() -> typer.Typer:
    """The commands of ``rounds``."""
    app = typer.Typer(no_args_is_help=True, help="Look at the rounds of a run, roll back, write its report.")
    app.command("list", epilog="Example:\n\n    o1-reason rounds list run")(listed)
    app.command("rollback", epilog="Example:\n\n    o1-reason rounds rollback run 2")(rollback)
    app.command("report", epilog="Example:\n\n    o1-reason rounds report run --out report.html")(report)
    return app


def improve(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.", file_okay=False)],
    rounds: Annotated[int, typer.Option(help="Rounds that the run is to have in all.", min=0)] = 3,
    model: Annotated[
        str, typer.Option("--model", "-m", help="What learns: embedded, or transformers:MODEL?problems=FILE.")
    ] = "embedded",
    scale: Annotated[str, typer.Option(help="smoke, tiny, small or ship: how much is trained.")] = "small",
    seed: Seed = 0,
    start: Annotated[
        Path | None,
        typer.Option(help="Folder of weights to begin with; else random ones.", file_okay=False, exists=True),
    ] = None,
    problems: Annotated[int | None, typer.Option(help="Training problems of a round.")] = None,
    tries: Annotated[int | None, typer.Option(help="Searches of each.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", "-s", help="Of all searches.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Its settings, NAME=VALUE.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Most tokens of a search for data.")] = None,
    label: Annotated[str | None, typer.Option(help=STEP_LABELS)] = None,
    solutions: Annotated[int | None, typer.Option(help="Labelled per problem.")] = None,
    rollouts: Annotated[int | None, typer.Option(help="From each step that is labelled.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="Of the reward model: classification, regression or td.")
    ] = None,
    set_prm: Annotated[list[str] | None, typer.Option(help="A setting of its trainer, NAME=VALUE.")] = None,
    method: Annotated[str | None, typer.Option(help="Of the policy: sft, dpo or grpo.")] = None,
    set_policy: Annotated[list[str] | None, typer.Option(help="A setting of its trainer, NAME=VALUE.")] = None,
    gate_problems: Annotated[int | None, typer.Option(help="Held-out problems of each gate.")] = None,
    gate_tries: Annotated[int | None, typer.Option(help="Searches of each, by both sides.")] = None,
    gate_tokens: Annotated[int | None, typer.Option(help="Most tokens of one of these.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Chance of letting in what is no better, in (0, 0.5).")] = None,
    measure_problems: Annotated[int | None, typer.Option(help="Test problems that measure each round.")] = None,
    measure_tokens: Annotated[list[int] | None, typer.Option(help="Budgets of the curve; repeatable.")] = None,
    report: Annotated[Path | None, typer.Option(help="The page; else report.html in --out.", dir_okay=False)] = None,
    ray: Annotated[str | None, typer.Option("--ray", help=RAY_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rounds as JSON and nothing else.")] = False,
) -> None:
    """Make a policy and its reward model better, round by round; what is no better does not pass the gate."""
    from .record import Record
    from .rounds import improve
    from .shown import improving
    from .training import settings_of

    wanted = {
        "problems": problems, "tries": tries, "strategy": strategy, "option": option and tuple(option),
        "tokens": tokens, "label": label, "solutions": solutions, "rollouts": rollouts, "objective": objective,
        "method": method, "gate_problems": gate_problems, "gate_tries": gate_tries, "gate_tokens": gate_tokens,
        "alpha": alpha, "measure_problems": measure_problems,
        "measure_tokens": measure_tokens and tuple(measure_tokens),
    }  # fmt: skip
    errors = Console(stderr=True, emoji=False)
    record, page = Record(out), report or out / "report.html"
    with explained(errors):
        for name, options in (("prm", set_prm), ("policy", set_policy)):
            wanted[name] = settings_of(options) if options else None
        plan = _plan(record, model, scale, {name: value for name, value in wanted.items() if value is not None})
        with improving(errors) as progress:
            improve(
                out, rounds, learner=model, scale=scale, seed=seed, start=start, plan=plan, ray=ray, progress=progress
            )
        _write_report(record, page)
    _show(record, as_json)
    if not as_json:
        typer.echo(f"\nreport: {page}\nweights: {record.rounds()[-1].weights}")


def _plan(record: "Record", model: str, scale: str, wanted: dict[str, Any]) -> "Plan":
    """What the run has, at its beginning what goes with the scale, with what is wanted in its place."""
    from .learner import resolve_learner
    from .plan import Plan, planned

    if record.exists:
        plan = Plan.from_data(record.settings["plan"])
    else:
        plan = planned(resolve_learner(model), scale)
    if "strategy" in wanted and "option" not in wanted and wanted["strategy"] != plan.strategy:
        wanted["option"] = ()  # those of another strategy mean nothing to it
    if "method" in wanted and "policy" not in wanted and wanted["method"] != plan.method:
        wanted["policy"] = {}  # nor do those of another method
    return replace(plan, **wanted)


def _write_report(record: "Record", page: Path) -> None:
    from .report import render

    page.absolute().parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(record), encoding="utf-8")


def _show(record: "Record", as_json: bool) -> None:
    from .shown import rounds_data, rounds_shown

    if as_json:
        sys.stdout.write(json.dumps(rounds_data(record.rounds())) + "\n")
    else:
        Console(highlight=False).print(rounds_shown(record.rounds()))


def listed(
    folder: Run,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, gates and measures included.")] = False,
) -> None:
    """The rounds of a run: what passed its gate, accuracy, the reward model's figures."""
    from .record import Record

    with explained(Console(stderr=True, emoji=False)):
        record = Record(folder)
        record.check()
        _show(record, as_json)


def rollback(
    folder: Run,
    number: Annotated[int, typer.Argument(help="The last round to stay in force; 0: the beginning.", min=0)],
) -> None:
    """Take the rounds after one out of force. They are kept; improve goes on from the one that is left."""
    from .rounds import rollback

    with explained(Console(stderr=True, emoji=False)):
        gone = rollback(folder, number)
    typer.echo(f"rolled back: {', '.join(map(str, gone)) or 'nothing'}; in force: round {number}")


def report(
    folder: Run,
    out: Annotated[Path | None, typer.Option("--out", help="The page; else report.html there.")] = None,
) -> None:
    """Write the report of a run, finished or not, as one HTML page."""
    from .record import Record

    with explained(Console(stderr=True, emoji=False)):
        page = out or folder / "report.html"
        record = Record(folder)
        record.check()
        _write_report(record, page)
    typer.echo(f"wrote {page}")
