"""The three objectives of the process reward model on the same data, with the embedded policy: a few CPU minutes.

    python benchmarks/prm_objectives.py            300 puzzles, one seed
    python benchmarks/prm_objectives.py --quick    100 puzzles: does it run?
    python benchmarks/prm_objectives.py --puzzles 400 --seeds 3

Trees are sampled from the shipped policy on puzzles that it was not trained on: 8 first steps, 3 steps after each, 2
after each of those, equal ones merged. Each reward model starts from the policy's trunk and sees each tree `epochs`
times: "classification" and "regression" the share of right samples below each state, "td" the tree and its outcomes.

Measured on the validation puzzles (ranks 801-900): AUC and ECE of the scores of sampled states against the exact
solver, which nothing was trained with, and the accuracy of beam search, which spends the same tokens with each. The
standard error is over puzzles.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _report import Report
from _reward import LEARNER, MEASURES, QUESTIONS, measures, states
from o1_reason_embedded import vocab
from o1_reason_embedded.policy import WEIGHTS
from o1_reason_embedded.puzzle import expression, parse, solves
from o1_reason_embedded.train.model import Transformer, load
from o1_reason_embedded.train.traces import played_puzzles

from o1_reason import Policy, Tree
from o1_reason.mdp import State, Step

BRANCH = (8, 3, 2)


def grow(model: Transformer, puzzles: Sequence[tuple[int, ...]], seed: int) -> list[Tree]:
    """One tree for each puzzle; the first step is sampled at temperature 1.5, so that bad ones are seen, too."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([vocab.prompt_ids(puzzle, 24) for puzzle in puzzles])
    trees = [Tree(" ".join(map(str, puzzle))) for puzzle in puzzles]
    places: list[tuple[Tree, int | None]] = [(tree, 0) for tree in trees]
    for depth, branch in enumerate(BRANCH):
        length = vocab.step_length(len(BRANCH) - depth)
        ids = torch.cat(
            [
                model.sample(part, length, 1.5 if depth == 0 else 1.0, generator)
                for part in ids.repeat_interleave(branch, 0).split(512)
            ]
        )
        places = [place for place in places for _ in range(branch)]
        steps = ids[:, -length:].tolist()
        places = [attach(*place, step, last=depth == 2) for place, step in zip(places, steps, strict=True)]
    return trees


def attach(tree: Tree, parent: int | None, tokens: list[int], *, last: bool) -> tuple[Tree, int | None]:
    """The node for a sampled step; None for what is no step, or follows none."""
    if parent is None or vocab.CLOSE not in tokens or tokens.index(vocab.CLOSE) < len(tokens) - 1:
        return tree, None
    text = vocab.decode(tokens).strip()
    answer = expression(parse(tree.question).numbers, [*tree.steps(parent), Step(text)]) if last else None
    return tree, None if answer == "" else tree.add(parent, Step(text, last, answer))[0].id


def shares(tree: Tree) -> dict[int, float]:
    """Of each node, the share of the finished samples below it that are right."""
    puzzle = parse(tree.question)
    right, total = [0] * len(tree), [0] * len(tree)
    for i in tree.terminals:
        step, samples = tree.nodes[i].step, tree.nodes[i].samples
        good = step is not None and step.answer is not None and solves(puzzle, step.answer)
        for j in tree.path(i):
            total[j] += samples
            right[j] += samples * good
    return {i: right[i] / total[i] for i in range(len(tree)) if total[i]}


def rows(tree: Tree) -> list[dict[str, Any]]:
    """Stepwise rows: one for each finished path; a state's label stands in the first row that passes it."""
    labels = shares(tree)
    found: list[dict[str, Any]] = []
    for i in tree.terminals:
        path = tree.path(i)[1:]
        texts = [step.text for step in tree.steps(i)]
        found.append({"prompt": tree.question, "completions": texts, "labels": [labels.pop(j, None) for j in path]})
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 puzzles, half an epoch, 20 validation puzzles")
    parser.add_argument("--puzzles", type=int, default=300)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    puzzles, epochs = (100, 0.5) if options.quick else (options.puzzles, options.epochs)
    torch.set_num_threads(1)  # small matrices: a second thread mostly waits
    report = Report()
    policy = LEARNER.policy(WEIGHTS)
    questions = QUESTIONS[: 20 if options.quick else 100]
    drawn = await states(policy, questions)
    table: list[list[str]] = []
    for seed in range(options.seeds):
        table += await compare(policy, questions, drawn, puzzles, epochs, seed)
    columns = ("objective", "seed", *MEASURES, "CPU s")
    note = f"{len(drawn)} states of {len(questions)} puzzles; shipped: the weights of the package, far more data"
    report.table(f"PRM objectives on {puzzles} trees, {epochs} epochs", columns, table, note)
    report.exit()


def write(path: Path, data: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in data))


async def compare(
    policy: Policy, questions: Sequence[str], drawn: Sequence[State], puzzles: int, epochs: float, seed: int
) -> list[list[str]]:
    trees = grow(load(WEIGHTS / "policy.safetensors", "cpu"), played_puzzles(seed, puzzles, reserved=True), seed)
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        stepwise, traces = Path(folder, "stepwise.jsonl"), Path(folder, "traces.jsonl")
        write(stepwise, [row for tree in trees for row in rows(tree)])
        write(traces, [{"tree": tree.to_data()} for tree in trees])
        for objective in ("classification", "regression", "td"):
            started, out = time.process_time(), Path(folder, objective)
            LEARNER.train_prm(
                traces if objective == "td" else stepwise, WEIGHTS, out,
                objective=objective, seed=seed, report=lambda _: None, fresh=True, epochs=epochs, batch=64,
            )  # fmt: skip
            seconds = time.process_time() - started
            found = await measures(policy, out, questions, drawn)
            table.append([objective, str(seed), *found, f"{seconds:.0f}"])
    if seed == 0:
        table.append(["shipped", "", *await measures(policy, WEIGHTS, questions, drawn), ""])
    return table


if __name__ == "__main__":
    asyncio.run(main())
