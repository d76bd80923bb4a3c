"""What searches left behind, as JSON lines, turned into the tokens that the embedded models train on.

Rows are those of `o1_reason.learn`: stepwise supervision {"prompt", "completions", "labels"}, prompt and completion
{"prompt", "completion", "steps"}, preference {"prompt", "chosen", "rejected"}, trace {"tree"}. A prompt begins with the
question; what follows it, a line each, are steps.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from o1_reason.errors import ConfigurationError
from o1_reason.learn.files import read_rows
from o1_reason.learn.objectives import Backup, backup_of
from o1_reason.tree import Tree

from .. import vocab as v
from ..puzzle import parse, solves
from .rollouts import Labelled, step_ends
from .traces import Tokens


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; raises ConfigurationError where it has none."""
    empty = True
    for _, row in read_rows(path):
        empty = False
        yield row
    if empty:
        raise ConfigurationError(f"{path} is empty; collect some data first")


def encoded(question: str, steps: Sequence[str]) -> tuple[int, list[int]]:
    """How many numbers the puzzle has, and the tokens of question and steps, as far as they are steps.

    Once in a while the policy, and more often another's, writes what is none, such as one with a padding token in it;
    the path is cut there.
    """
    puzzle = parse(question)
    n = len(puzzle.numbers)
    ids = v.prompt_ids(puzzle.numbers, puzzle.target)
    for left, step in zip(range(n - 1, 0, -1), steps, strict=False):
        try:
            tokens = v.encode(step.strip() + "\n")
        except ValueError:
            break
        if len(tokens) != v.step_length(left):
            break
        ids += tokens
    return n, ids


def _padded(rows: Sequence[Sequence[int]], length: int) -> Tokens:
    tokens = np.full((len(rows), length), v.PAD, np.int16)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens


def labelled(path: Path) -> list[Labelled]:
    """Stepwise rows by puzzle size; a label that is null, or of a step that is not there, is NaN."""
    by: dict[int, list[tuple[list[int], list[float]]]] = defaultdict(list)
    for row in read(path):
        n, ids = encoded(row["prompt"], row["completions"])
        there = int((step_ends(n) < len(ids)).sum())
        labels = [np.nan if label is None else float(label) for label in row["labels"][:there]]
        if not np.isnan(labels).all():
            by[n].append((ids, labels + [np.nan] * (n - 1 - there)))
    if not by:
        raise ConfigurationError(f"{path} has no labelled step of the embedded policy; label some of its searches")
    return [
        Labelled(
            n,
            _padded([ids for ids, _ in rows], int(step_ends(n)[-1]) + 2),
            np.array([labels for _, labels in rows], np.float32),
        )
        for n, rows in sorted(by.items())
    ]


def solutions(path: Path) -> dict[int, Tokens]:
    """Finished solutions by puzzle size, each with its end-of-text token; raises ConfigurationError for others."""
    by: dict[int, list[list[int]]] = defaultdict(list)
    for row in read(path):
        n, ids = encoded(row["prompt"], row["steps"])
        if len(ids) != step_ends(n)[-1] + 1:
            raise ConfigurationError(f"row {row.get('id')!r} is no finished solution of {row['prompt']!r}")
        by[n].append([*ids, v.EOS])
    return {n: np.array(rows, np.int16) for n, rows in sorted(by.items())}


def prompts(path: Path) -> dict[int, Tokens]:
    """The distinct questions of any rows, by puzzle size."""
    by: dict[int, dict[tuple[int, ...], None]] = defaultdict(dict)
    for row in read(path):
        question = row["prompt"] if "prompt" in row else row["tree"]["question"]
        n, ids = encoded(question.splitlines()[0], ())
        by[n][tuple(ids)] = None
    return {n: np.array(list(rows), np.int16) for n, rows in sorted(by.items())}


@dataclass
class Pairs:
    """Steps that follow the same states: `chosen` and `rejected` (rows, length), alike up to `start`."""

    start: int
    chosen: Tokens
    rejected: Tokens


def pairs(path: Path) -> list[Pairs]:
    """Preference rows by size of puzzle and place of the step."""
    by: dict[tuple[int, int], list[tuple[list[int], list[int]]]] = defaultdict(list)
    for row in read(path):
        question, *steps = row["prompt"].strip().splitlines()
        steps = [step for step in steps if step.strip()]
        n, before = encoded(question, steps)
        one, other = (encoded(question, [*steps, row[name]])[1] for name in ("chosen", "rejected"))
        if len(one) == len(other) == int(step_ends(n)[len(steps)]) + 1:
            by[n, len(before)].append((one, other))
    if not by:
        raise ConfigurationError(f"{path} has no pair of steps of the embedded policy; collect some of its searches")
    return [
        Pairs(start, *(np.array([pair[side] for pair in rows], np.int16) for side in (0, 1)))
        for (_, start), rows in sorted(by.items())
    ]


@dataclass
class Grove:
    """Search trees as rows of tokens, the paths to their leaves, and as a `Backup` whose nodes are steps.

    tokens (rows, length); of each node, where its step ends, `row` and `at`, and as in a `Backup` the others
    """

    n: int
    tokens: Tokens
    row: NDArray[np.int64]
    at: NDArray[np.int64]
    parents: NDArray[np.int64]
    rewards: NDArray[np.float32]
    ends: NDArray[np.bool_]


def groves(path: Path) -> list[Grove]:
    """One per tree. Traces bring theirs; the stepwise rows of a question are merged into one.

    A finished path is worth what the rules say, or the label of its last step where the data is stepwise.
    """
    trees: list[Grove | None] = []
    questions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read(path):
        if "tree" in row:
            trees.append(_of_tree(Tree.from_data(row["tree"])))
        else:
            questions[row["prompt"]].append(row)
    trees += [_of_rows(question, rows) for question, rows in questions.items()]
    return [tree for tree in trees if tree is not None]


def _of_tree(tree: Tree) -> Grove | None:
    puzzle = parse(tree.question)

    def outcome(i: int) -> float | None:
        step = tree.nodes[i].step
        return float(step is not None and step.answer is not None and solves(puzzle, step.answer))

    texts = ["" if node.step is None else node.step.text for node in tree.nodes]
    return _grove(tree.question, backup_of(tree, outcome), texts)


def _of_rows(question: str, rows: Sequence[dict[str, Any]]) -> Grove | None:
    last = len(parse(question).numbers) - 1
    nodes: dict[tuple[str, ...], int] = {(): 0}
    parents, rewards, ends = [-1], [0.0], [False]
    for row in rows:
        for k, label in enumerate(row["labels"], 1):
            path = tuple(row["completions"][:k])
            if path not in nodes:
                nodes[path] = len(nodes)
                parents.append(nodes[path[:-1]])
                outcome = label if k == last else None
                ends.append(outcome is not None)
                rewards.append(float(outcome or 0.0))
    texts = [path[-1] if path else "" for path in nodes]
    return _grove(question, Backup(tuple(parents), tuple(rewards), tuple(ends)), texts)


def _grove(question: str, backup: Backup, texts: Sequence[str]) -> Grove | None:
    """The root, which no step leads to, is left out, and so is what is no step, with all below; None if that is all."""
    rows: list[list[int]] = []
    row, at = np.full(len(texts), -1), np.zeros(len(texts), np.int64)
    n = len(parse(question).numbers)
    ends = step_ends(n)
    for path in backup.paths():
        ids = encoded(question, [texts[node] for node in path])[1]
        for node, end in zip(path, ends[ends < len(ids)], strict=False):
            if row[node] < 0:
                row[node], at[node] = len(rows), end
        rows.append(ids)
    shown = row >= 0
    if not shown.any():
        return None
    place = np.where(shown, np.cumsum(shown) - 1, -1)  # among those shown; the root is not
    return Grove(
        n,
        _padded(rows, int(ends[-1]) + 1),
        row[shown],
        at[shown],
        place[np.array(backup.parents)[shown]],
        np.array(backup.rewards, np.float32)[shown],
        np.array(backup.ends, bool)[shown],
    )


def draw_groves(trees: Sequence[Grove], rows: int, rng: np.random.Generator) -> Iterator[Grove]:
    """Batches of whole trees of one size, of `rows` paths or just above, in ever new order."""
    by: dict[int, list[Grove]] = defaultdict(list)
    for tree in trees:
        by[tree.n].append(tree)
    sizes = sorted(by)
    weight = np.array([sum(len(tree.tokens) for tree in by[n]) for n in sizes], float)
    queues: dict[int, list[int]] = {n: [] for n in sizes}
    while True:
        n = sizes[int(rng.choice(len(sizes), p=weight / weight.sum()))]
        batch: list[Grove] = []
        while sum(len(tree.tokens) for tree in batch) < rows:
            if not queues[n]:
                queues[n] = rng.permutation(len(by[n])).tolist()
            batch.append(by[n][queues[n].pop()])
        yield joined(batch)


def joined(trees: Sequence[Grove]) -> Grove:
    """Trees of one size as one grove."""
    rows = np.cumsum([0, *(len(tree.tokens) for tree in trees)])
    nodes = np.cumsum([0, *(len(tree.row) for tree in trees)])
    return Grove(
        trees[0].n,
        np.concatenate([tree.tokens for tree in trees]),
        np.concatenate([tree.row + start for tree, start in zip(trees, rows, strict=False)]),
        np.concatenate([tree.at for tree in trees]),
        np.concatenate(
            [np.where(tree.parents < 0, -1, tree.parents + start) for tree, start in zip(trees, nodes, strict=False)]
        ),
        np.concatenate([tree.rewards for tree in trees]),
        np.concatenate([tree.ends for tree in trees]),
    )
