"""Rows of training data, as TRL reads them.

stepwise           {"id", "prompt", "completions": [step], "labels": [in [0, 1] or null], "rollouts": [int or null],
                    "source"}
prompt-completion  {"id", "prompt", "completion", "source", "steps": [step]}
preference         {"id", "prompt", "chosen", "rejected", "margin", "steps": [step before them]}

A label is null where nothing is known; `rollouts` says how many samples stand behind it: 1 where the step's own answer
was checked, null where nobody counted. The prompt of the last two ends with the separator, for trainers put prompt and
completion next to each other as they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..mdp import State
from .problems import Problem
from .rollouts import texts
from .store import digest

Row = dict[str, Any]
Path = tuple[str, ...]  # texts of steps, from the first on
Label = tuple[float | None, int | None]  # and the rollouts behind it

UNKNOWN: Label = (None, None)


def prompt_of(problem: Problem) -> str:
    """The question, after the messages before it."""
    before = [text for message in problem.context if isinstance(text := message.get("content"), str)]
    return "\n\n".join([*before, problem.question])


def stepwise(prompt: str, steps: Sequence[str], labels: Sequence[Label], source: str, *made_by: Any) -> Row:
    """A row with one label per step; `made_by` tells it apart from other labels of the same steps."""
    return {
        "id": digest(source, prompt, steps, *made_by),
        "prompt": prompt,
        "completions": list(steps),
        "labels": [label for label, _ in labels],
        "rollouts": [n for _, n in labels],
        "source": source,
    }


def from_prefixes(prompt: str, known: Mapping[Path, Label], source: str, *made_by: Any) -> Iterator[Row]:
    """Stepwise rows from labels of prefixes that share their beginnings, as in a tree.

    One row per longest prefix. Each label stands in one row, the first that its prefix is part of, and is null in all
    others: a shared step counts once. The empty prefix, the question itself, has no step to put a label on.
    """
    inner = {path[:end] for path in known for end in range(len(path))}
    used: set[Path] = set()
    for path in known:
        if path and path not in inner:
            prefixes = [path[:end] for end in range(1, len(path) + 1)]
            labels = [UNKNOWN if prefix in used else known.get(prefix, UNKNOWN) for prefix in prefixes]
            used.update(prefixes)
            if any(label is not None for label, _ in labels):
                yield stepwise(prompt, path, labels, source, *made_by)


def completion(problem: Problem, state: State, source: str, separator: str = "\n") -> Row:
    """A solution to be learned by heart, its steps joined by `separator`."""
    steps = texts(state)
    prompt = prompt_of(problem) + separator
    return {
        "id": digest("completion", prompt, steps),
        "prompt": prompt,
        "completion": separator.join(steps),
        "source": source,
        "steps": list(steps),
    }


def preference(problem: Problem, path: Path, chosen: str, rejected: str, margin: float, separator: str = "\n") -> Row:
    """Two next steps after `path`, of which the first is better by `margin`."""
    prompt = "".join(text + separator for text in (prompt_of(problem), *path))
    return {
        "id": digest("preference", prompt, chosen, rejected),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "margin": margin,
        "steps": list(path),
    }


def distinct(rows: Iterable[Row]) -> Iterator[Row]:
    """The first row of each id."""
    seen: set[str] = set()
    for row in rows:
        if row["id"] not in seen:
            seen.add(row["id"])
            yield row
