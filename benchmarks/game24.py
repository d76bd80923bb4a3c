"""Accuracy and cost of every strategy on the 100 Game of 24 puzzles of the Tree-of-Thoughts paper (ranks 901-1000).

    python benchmarks/game24.py                     all strategies, default settings, three seeds
    python benchmarks/game24.py --split validation  ranks 801-900: for choosing settings
    python benchmarks/game24.py --split five        100 random puzzles of five numbers, any target; also: three, four
    python benchmarks/game24.py --strategies beam mcts --set branch=6 --seeds 1
    python benchmarks/game24.py --weights run/rounds/003/weights      those of a learning run

Two verifiers, reported apart: the process reward model alone, and with the exact rule check as outcome verifier. An
answer counts as right if it is an expression that uses each number once and makes 24, in exact arithmetic. The
standard error is over puzzles, each puzzle's mean over seeds being one observation.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier, RuleVerifier
from o1_reason_embedded.policy import WEIGHTS
from o1_reason_embedded.puzzle import parse, solves
from o1_reason_embedded.train.traces import play, ranked_puzzles
from o1_reason_embedded.vocab import NUMBER_0
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from o1_reason import Gate, Policy, Verifier, search
from o1_reason.strategies import STRATEGIES

RANKED = {"test": slice(900, 1000), "validation": slice(800, 900)}
RANDOM = {"three": 3, "four": 4, "five": 5}  # numbers to 25, targets to 100; some may have been trained on


def puzzles(split: str) -> list[str]:
    """Questions of a split: ranked ones in order of human difficulty, random ones from random plays."""
    if split in RANKED:
        return [" ".join(map(str, numbers)) for numbers in ranked_puzzles()[RANKED[split]]]
    n = RANDOM[split]
    traces, _ = play(np.random.default_rng(2024), n, 25, 2000)
    drawn = [[int(token) - NUMBER_0 for token in row] for row in traces[:100]]
    return [f"Make {row[n + 1]} from {' '.join(map(str, row[:n]))}" for row in drawn]


async def run(
    strategy: Any, policy: Policy, verifier: Verifier | None, questions: list[str], seeds: int, tick: Any
) -> dict[str, float]:
    """Means over puzzles and seeds of what the table shows."""
    right = [0.0] * len(questions)
    tokens = calls = 0
    started = time.monotonic()
    for seed in range(seeds):
        for i, question in enumerate(questions):
            result = await search(question, policy, verifier, strategy, seed=seed)
            right[i] += solves(parse(question), result.answer or "") / seeds
            tokens += result.policy_usage.completion_tokens
            calls += result.verifier_usage.calls
            tick()
    runs = seeds * len(questions)
    return {
        "accuracy": statistics.mean(right),
        "error": statistics.stdev(right) / len(right) ** 0.5,
        "tokens": tokens / runs,
        "calls": calls / runs,
        "seconds": (time.monotonic() - started) / runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=[*RANKED, *RANDOM], default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", choices=sorted(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--verifiers", nargs="+", choices=("prm", "rules"), default=["prm", "rules"])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the strategies")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the models' weights")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    changes = {name: _value(text) for name, _, text in (item.partition("=") for item in options.set)}
    policy = EmbeddedPolicy(weights=options.weights / "policy.safetensors")
    prm = EmbeddedVerifier(options.weights / "prm.safetensors")
    verifiers: dict[str, Verifier] = {"prm": prm, "rules": Gate(prm, RuleVerifier())}
    questions = puzzles(options.split)
    jobs = [(name, kind) for kind in options.verifiers for name in options.strategies]
    rows: list[tuple[str, ...]] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("puzzles", total=len(jobs) * options.seeds * len(questions))
        for name, kind in jobs:
            strategy = replace(STRATEGIES[name](), **changes)
            tick = partial(progress.advance, task)
            done = asyncio.run(run(strategy, policy, verifiers[kind], questions, options.seeds, tick))
            cells = (
                f"{100 * done['accuracy']:.1f} ± {100 * done['error']:.1f}", f"{done['tokens']:.0f}",
                f"{done['calls']:.1f}", f"{done['seconds']:.2f}",
            )  # fmt: skip
            rows.append((name, "reward model" if kind == "prm" else "+ rule check", *cells))
    head = ("strategy", "verifier", "accuracy, %", "tokens generated", "verifier calls", "seconds")
    if options.markdown:
        for row in (head, ("---",) * len(head), *rows):
            print(f"| {' | '.join(row)} |")
        return
    table = Table(*head, title=f"{len(questions)} {options.split} puzzles, {options.seeds} seeds, means per puzzle")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
