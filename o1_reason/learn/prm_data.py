"""What a process reward model is trained on, as batches: steps, the marks that close them, labels, trees."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConfigurationError
from ..mdp import Step
from .files import read_rows
from .objectives import Backup, Objective, backup_of, td_targets
from .problems import Checker, verdicts
from .rows import prompt_of
from .traces import finished_states, problem_of, tree_of

if TYPE_CHECKING:
    from torch import Tensor

Example = dict[str, Any]


class Format(Protocol):
    """How a model wants to be asked: `o1_reason_openai.prm_formats.PRMFormat` is one, with which it is served, too."""

    @property
    def tail(self) -> str: ...

    @property
    def special_tokens(self) -> bool: ...

    def clean(self, question: str, steps: Sequence[Step]) -> tuple[str, list[str]]: ...

    def pieces(self, question: str, steps: Sequence[str]) -> list[str]:
        """Head, step, mark, step, mark ..."""
        ...


@dataclass(frozen=True, slots=True)
class Lines:
    """The question and the steps, a line each: what `RemotePRM(..., format="trl")` sends."""

    mark: str = "\n"
    tail: str = ""
    special_tokens: bool = True

    def clean(self, question: str, steps: Sequence[Step]) -> tuple[str, list[str]]:
        return question.strip(), [step.text.strip().removesuffix(self.mark.strip()).rstrip() for step in steps]

    def pieces(self, question: str, steps: Sequence[str]) -> list[str]:
        return [question, *(piece for step in steps for piece in (step, self.mark))]


async def tree_rows(traces: Iterable[Mapping[str, Any]], checker: Checker) -> list[Example]:
    """What "td" is trained on, out of recorded searches: {"prompt", "texts", "backup"}; `checker` judges the ends."""
    rows: list[Example] = []
    for trace in traces:
        tree, problem = tree_of(dict(trace)), problem_of(dict(trace))
        ends = finished_states(tree)
        right = await verdicts(checker, problem, [state for _, state in ends])
        outcomes = {i: float(good) for (i, _), good in zip(ends, right, strict=True)}
        if len(tree) > 1:
            texts = ["" if node.step is None else node.step.text for node in tree.nodes]
            rows.append({"prompt": prompt_of(problem), "texts": texts, "backup": backup_of(tree, outcomes.get)})
    return rows


@dataclass
class Encoder:
    """Question and steps as tokens, and where the marks end. `cut` counts rows and steps that did not fit."""

    tokenizer: Any
    format: Format
    max_length: int
    cut: dict[str, int] = field(default_factory=lambda: {"rows": 0, "steps": 0})

    def __call__(self, question: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
        """Token ids, at most `max_length`, and the index of the last token of each mark that is in them.

        Pieces are tokenized one by one, so that no token spans the end of a step.
        """
        question, steps = self.format.clean(question, [Step(step) for step in steps])
        head, *rest = self.format.pieces(question, steps)
        ids = list(self.tokenizer(head, add_special_tokens=self.format.special_tokens)["input_ids"])
        tail = self._plain(self.format.tail)
        marks: list[int] = []
        for text, mark in zip(rest[::2], rest[1::2], strict=True):
            piece = self._plain(text) + self._plain(mark)
            if len(ids) + len(piece) + len(tail) > self.max_length:
                self.cut["rows"] += 1
                self.cut["steps"] += len(steps) - len(marks)
                break
            ids += piece
            marks.append(len(ids) - 1)
        return ids + tail, marks

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def path_examples(rows: Iterable[Mapping[str, Any]], encode: Encoder) -> list[Example]:
    """Stepwise rows as {"ids", "labels"}: the label stands at the mark, NaN everywhere else and for null."""
    found: list[Example] = []
    for row in rows:
        if len(row["completions"]) != len(row["labels"]):
            raise ConfigurationError(
                f"row {row.get('id')!r} has {len(row['completions'])} steps and {len(row['labels'])} labels; give one "
                "label for each step, null where it is unknown"
            )
        ids, marks = encode(row["prompt"], row["completions"])
        labels = [float("nan")] * len(ids)
        for at, label in zip(marks, row["labels"], strict=False):
            labels[at] = float("nan") if label is None else float(label)
        if any(label == label for label in labels):
            found.append({"paths": [ids], "labels": [labels]})
    return found


def tree_examples(rows: Sequence[Example], encode: Encoder) -> list[Example]:
    """Rows of `tree_rows` as {"paths": one per leaf, "row", "at": of each node, where it is read, -1: nowhere}."""
    found: list[Example] = []
    for item in rows:
        backup: Backup = item["backup"]
        row, at = [-1] * len(backup.parents), [0] * len(backup.parents)
        paths: list[list[int]] = []
        for path in backup.paths():
            ids, marks = encode(item["prompt"], [item["texts"][node] for node in path])
            for node, mark in zip(path, marks, strict=False):
                if row[node] < 0:
                    row[node], at[node] = len(paths), mark
            paths.append(ids)
        found.append({"paths": paths, "row": row, "at": at, "backup": backup})
    return found


def collate(examples: Sequence[Example], pad: int) -> dict[str, "Tensor"]:
    """A batch: all paths of all examples, padded on the right; labels, or, for trees, one entry for each node."""
    import torch

    paths = [path for example in examples for path in example["paths"]]
    length = max(map(len, paths))
    batch = {
        "input_ids": torch.tensor([path + [pad] * (length - len(path)) for path in paths]),
        "attention_mask": torch.tensor([[1] * len(path) + [0] * (length - len(path)) for path in paths]),
    }
    if "labels" in examples[0]:
        labels = [row + [float("nan")] * (length - len(row)) for example in examples for row in example["labels"]]
        return batch | {"labels": torch.tensor(labels)}
    row, at, parents, rewards, ends = [], [], [], [], []
    first = 0
    for example in examples:
        backup: Backup = example["backup"]
        parents += [parent if parent < 0 else parent + len(row) for parent in backup.parents]
        row += [place if place < 0 else place + first for place in example["row"]]
        first += len(example["paths"])
        at += example["at"]
        rewards += backup.rewards
        ends += backup.ends
    return batch | {
        "row": torch.tensor(row), "at": torch.tensor(at), "parents": torch.tensor(parents),
        "rewards": torch.tensor(rewards), "ends": torch.tensor(ends),
    }  # fmt: skip


def tree_loss(objective: Objective, logits: "Tensor", frozen: "Tensor", batch: Mapping[str, "Tensor"]) -> "Tensor":
    """The TD loss of a batch of trees from the logits (paths, tokens) of the model and of its frozen copy.

    A node that is read nowhere, because its step did not fit, has no value: it is no leaf that could be bootstrapped.
    """
    import torch

    row, at = batch["row"], batch["at"]
    shown = row >= 0
    values = torch.where(shown, frozen[row.clamp(min=0), at].float().sigmoid(), -torch.inf)
    targets = td_targets(values, batch["parents"], batch["rewards"], batch["ends"], objective.gamma)
    return objective(logits[row[shown], at[shown]].float(), targets[shown])


def read_examples(data: str | Path, encode: Encoder) -> list[Example]:
    """Stepwise rows of a file, encoded; raises ConfigurationError where nothing is left to train on."""
    examples = path_examples((row for _, row in read_rows(data)), encode)
    if not examples:
        raise ConfigurationError(f"{data} has no labelled step that fits in {encode.max_length} tokens")
    return examples
