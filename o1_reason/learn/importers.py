"""Step labels that others have published, as stepwise rows. Each reads one file, entry by entry.

What is known of a step becomes its label; what is not known becomes null, never a guess. An entry that cannot be read
raises ConfigurationError with its line; given `skipped`, that is called with the message instead, and the rest is read.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from ..errors import ConfigurationError
from .files import read_json
from .rows import UNKNOWN, Label, Path, Row, from_prefixes, stepwise

Skipped = Callable[[str], None]
Reader = Callable[[dict[str, Any]], Iterator[Row]]


def read_prm800k(path: str | FilePath, *, neutral: float | None = 1.0, skipped: Skipped | None = None) -> Iterator[Row]:
    """PRM800K (Lightman et al. 2023, arXiv 2305.20050; README of github.com/openai/prm800k).

    The steps that were chosen make one row. Each alternative that was not makes a row of its own, after the chosen
    steps before it, which are null there: they are labelled in the first row, and no step follows one that it was not
    written after. Rating +1 is 1, -1 is 0, 0 is `neutral` (1, as in the paper; None: unknown); a step without a rating,
    or flagged, or written by the labeller is null.
    """

    def rows(entry: dict[str, Any]) -> Iterator[Row]:
        prompt = entry["question"]["problem"]
        chosen: list[str] = []
        labels: list[Label] = []
        others: list[tuple[Path, Label]] = []
        for step in entry["label"]["steps"]:
            completions, pick = step["completions"] or [], step["chosen_completion"]
            for i, one in enumerate(completions):
                if i != pick:
                    others.append(((*chosen, one["text"]), _rating(one, neutral)))
            if pick is None and step["human_completion"] is None:
                break  # nothing was chosen: the labelling ends here
            if pick is None:
                human = step["human_completion"]
                chosen.append(human["text"] if isinstance(human, dict) else human)
                labels.append(UNKNOWN)
            else:
                chosen.append(completions[pick]["text"])
                labels.append(_rating(completions[pick], neutral))
        if any(label is not None for label, _ in labels):
            yield stepwise(prompt, chosen, labels, "prm800k")
        for steps, label in others:
            if label[0] is not None:
                yield stepwise(prompt, steps, [*[UNKNOWN] * (len(steps) - 1), label], "prm800k")

    return _entries(path, rows, skipped)


def _rating(completion: dict[str, Any], neutral: float | None) -> Label:
    if completion.get("flagged"):
        return UNKNOWN
    return {1: 1.0, -1: 0.0, 0: neutral, None: None}[completion["rating"]], None


_TAG = re.compile(r"(?<!\w)ки(?!\w)")
_FIRST = re.compile(r"step 1\s*:", re.IGNORECASE)


def read_math_shepherd(path: str | FilePath, *, skipped: Skipped | None = None) -> Iterator[Row]:
    """Math-Shepherd (arXiv 2312.08935; card of huggingface.co/datasets/peiyi9979/Math-Shepherd).

    "input" is question and steps, a tag ``ки`` after each step; "label" is the same text with + or - in place of each
    tag, and nothing else: that is checked. The question ends where "Step 1:" begins; a tag within it labels no step.
    """

    def rows(entry: dict[str, Any]) -> Iterator[Row]:
        pieces = _TAG.split(entry["input"])
        signs = _signs(pieces, entry["label"])
        text, starts = "", []
        for piece in pieces:
            text += piece
            starts.append(len(text))
        first = _FIRST.search(text)
        if first is None:
            raise ValueError('"Step 1:" is missing, so where the question ends is not known')
        begin = first.start()
        steps: list[str] = []
        labels: list[Label] = []
        for end, sign in zip(starts[:-1], signs, strict=True):
            if end > begin:
                steps.append(text[begin:end].strip())
                labels.append((float(sign == "+"), None))
                begin = end
        yield stepwise(text[: first.start()].strip(), steps, labels, "math_shepherd")

    return _entries(path, rows, skipped)


def _signs(pieces: list[str], label: str) -> list[str]:
    """What stands in `label` between the pieces of the input."""
    signs: list[str] = []
    at = 0
    for i, piece in enumerate(pieces):
        if not label.startswith(piece, at):
            raise ValueError(f'"label" is not "input" with signs for tags: it goes on {label[at : at + 40]!r}')
        at += len(piece)
        if i < len(pieces) - 1:
            sign = label[at : at + 1]
            if sign not in ("+", "-"):
                raise ValueError(f'"label" has {sign!r} where + or - must be')
            signs.append(sign)
            at += 1
    if label[at:].strip():
        raise ValueError(f'"label" goes on after the last step: {label[at : at + 40]!r}')
    return signs


def read_math_aps(path: str | FilePath, *, skipped: Skipped | None = None) -> Iterator[Row]:
    """MATH-APS, in its three forms (github.com/openreasoner/openr, data/omegaPRM_v2 and preprocess).

    tree     {"question", "reasoning_steps": {"text", "mc_value", "children"}}, the root being the question
    flat     {"question", "reasoning_steps": [{"solution_prefix", "mc_value"}]}, each prefix beginning with the question
    oldest   {"q", "states": [{"state", "rollout", "mcs"}]}, cut anywhere, also between words

    Labels are the Monte-Carlo values as they are. A node of several paragraphs is as many steps, of which the last has
    the label. In the oldest form the blank that was lost where a state was put together comes back from its rollout.
    """

    def rows(entry: dict[str, Any]) -> Iterator[Row]:
        if "q" in entry:
            prompt, known = entry["q"], _oldest(entry["states"])
        else:
            prompt, data = entry["question"], entry["reasoning_steps"]
            known = _tree(data) if isinstance(data, dict) else _flat(prompt, data)
        yield from from_prefixes(prompt, known, "math_aps")

    return _entries(path, rows, skipped)


def _steps(text: str) -> Path:
    return tuple(step.strip() for step in re.split(r"\n\s*\n", text) if step.strip())


def _value(value: Any) -> Label:
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"a Monte-Carlo value must be in [0, 1]; got {value!r}")
    return None if value is None else float(value), None


def _tree(root: dict[str, Any]) -> Mapping[Path, Label]:
    known: dict[Path, Label] = {}
    stack: list[tuple[Path, dict[str, Any]]] = [((), child) for child in reversed(root["children"])]
    while stack:
        above, node = stack.pop()
        path = (*above, *_steps(node["text"]))
        known.setdefault(path, _value(node["mc_value"]))
        stack.extend((path, child) for child in reversed(node["children"]))
    return known


def _flat(question: str, prefixes: list[dict[str, Any]]) -> Mapping[Path, Label]:
    known: dict[Path, Label] = {}
    for prefix in prefixes:
        text = prefix["solution_prefix"]
        if not text.startswith(question):
            raise ValueError(f'a "solution_prefix" must begin with the question; it begins {text[:40]!r}')
        known.setdefault(_steps(text[len(question) :]), _value(prefix["mc_value"]))
    return known


def _oldest(states: list[dict[str, Any]]) -> Mapping[Path, Label]:
    """Each state as what it was put together from: the state before it, and the beginning of a rollout of that."""
    pieces: dict[str, Path] = {"": ()}
    known: dict[Path, Label] = {}
    for state in sorted(states, key=lambda state: len(state["state"])):
        text = state["state"]
        if text not in pieces:
            pieces[text] = _pieces(text, states, pieces)
        known.setdefault(pieces[text], _value(state["mcs"]))
    return known


def _pieces(text: str, states: list[dict[str, Any]], pieces: Mapping[str, Path]) -> Path:
    for before in sorted((known for known in pieces if text.startswith(known)), key=len, reverse=True):
        rest = text[len(before) :]
        for state in states:
            rollout = state["rollout"]
            if state["state"] == before and rollout.lstrip().startswith(rest.lstrip()):
                blank = rollout[: len(rollout) - len(rollout.lstrip())] if before else ""
                return (*pieces[before], blank + rest.lstrip())
    return (text,)


def _entries(path: str | FilePath, rows: Reader, skipped: Skipped | None) -> Iterator[Row]:
    for line, entry in read_json(path):
        try:
            yield from list(rows(entry))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            why = f"{path}, line {line}: not of this format ({type(error).__name__}: {error})"
            if skipped is None:
                raise ConfigurationError(f"{why}; mend or remove it, or pass skipped=") from error
            skipped(why)
