"""Ways to train the embedded policy on what search found, from the shipped weights: some CPU minutes each.

    python benchmarks/policy_methods.py                     all of them, 150 steps of GRPO
    python benchmarks/policy_methods.py --quick             a tenth of it: does it run?
    python benchmarks/policy_methods.py --methods grpo --steps 400

Training puzzles are those that the policy was not trained on. "sft" and "dpo" learn from searches of them (best-of-n
within 600 tokens): right solutions, and steps against their siblings; "grpo" from the outcome of its own samples,
"grpo + prm" from the reward model's scores of their steps, too, both weighing 1.

Measured on the validation puzzles (ranks 801-900), all in %: greedy, the mean of 64 samples, some of 16 and of 64
samples right, and beam search with the shipped reward model, which was trained on the first policy's samples.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from _report import Report
from _reward import LEARNER, QUESTIONS, beam
from o1_reason_embedded.policy import WEIGHTS
from o1_reason_embedded.train.model import load
from o1_reason_embedded.train.pipeline import validate
from o1_reason_embedded.train.traces import played_puzzles

from o1_reason import BestOfN, Budget
from o1_reason.learn import Problem, TraceStore, VerifierChecker, collect
from o1_reason.learn.dataset import rows_of, write_rows

METHODS = {
    "shipped": None,
    "sft": ("sft", "sft.jsonl", {}),
    "dpo": ("dpo", "preference.jsonl", {}),
    "grpo": ("grpo", "traces.jsonl", {"process": 0.0}),
    "grpo + prm": ("grpo", "traces.jsonl", {"process": 1.0}),
}


async def data(folder: Path, puzzles: int) -> None:
    """Searches of `puzzles` training puzzles, and the rows that come of them."""
    checker = VerifierChecker(LEARNER.checker())
    problems = [Problem(" ".join(map(str, numbers))) for numbers in played_puzzles(0, puzzles, reserved=True)]
    store = TraceStore(folder / "traces.jsonl")
    policy, prm = LEARNER.policy(WEIGHTS), LEARNER.verifier(WEIGHTS)
    await collect(problems, policy, prm, BestOfN(n=256), Budget(max_tokens=600), checker, store)
    for kind in ("sft", "preference"):
        await write_rows(rows_of(TraceStore(store.path), kind, checker), folder / f"{kind}.jsonl")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 puzzles, 15 steps, beam on 20 puzzles")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=150, help="of GRPO")
    options = parser.parse_args()
    puzzles, steps = (40, 15) if options.quick else (440, options.steps)
    torch.set_num_threads(1)  # small matrices: a second thread mostly waits
    report = Report()
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        await data(Path(folder), puzzles)
        for name in options.methods:
            table.append([name, *await measured(name, Path(folder), steps, 20 if options.quick else 100)])
            print(*table[-1], sep="  ", file=sys.stderr, flush=True)
    columns = ("method", "greedy", "one sample", "of 16", "of 64", "beam", "tokens", "CPU s")
    report.table(f"Training on {puzzles} puzzles", columns, table, f"one seed; GRPO: {steps} steps of 32 x 8 samples")
    report.exit()


async def measured(name: str, folder: Path, steps: int, questions: int) -> list[str]:
    started, out = time.process_time(), WEIGHTS
    if (how := METHODS[name]) is not None:
        method, file, settings = how
        out = folder / name
        more = {"steps": steps, **settings} if method == "grpo" else settings
        LEARNER.train_policy(folder / file, WEIGHTS, out, method=method, seed=0, report=lambda _: None, **more)
    seconds = time.process_time() - started
    shares = validate(load(out / "policy.safetensors", "cpu"), 0, lambda _: None)
    right, tokens = await beam(LEARNER.policy(out), LEARNER.verifier(WEIGHTS), QUESTIONS[:questions])
    shown = [f"{100 * share:.1f}" for share in (*shares, statistics.mean(right))]
    return [*shown, f"{tokens:.0f}", f"{seconds:.0f}"]


if __name__ == "__main__":
    asyncio.run(main())
