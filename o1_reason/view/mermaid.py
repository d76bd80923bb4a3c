"""A search as a Mermaid flowchart, for README files, issues and chats."""

import re

from .data import Picture

LONGEST = 60  # characters of a step that are shown
STYLES = """\
  classDef best stroke-width:4px
  classDef dead stroke-dasharray:9 4
  classDef open stroke-dasharray:2 3"""


def flowchart(picture: Picture, limit: int = 100) -> str:
    """The best path and the oldest steps, `limit` nodes in all; what is left out is counted where it belongs.

    Mermaid itself draws up to 500 edges and 50,000 characters unless it is configured otherwise.
    """
    columns, best = picture.columns, set(picture.path())
    kept = set(best)
    for i in range(len(picture)):  # a parent is older than its children, so none is left out above a kept one
        if len(kept) >= limit:
            break
        kept.add(i)
    lines, hidden = ["flowchart LR"], dict.fromkeys(kept, 0)
    inner = set(columns["parent"])
    lines += [f"  n{i}{_shape(picture, i)}{_kind(picture, i, best, inner)}" for i in sorted(kept)]
    for i in range(1, len(picture)):
        parent = columns["parent"][i]
        if i in kept:
            lines.append(f"  n{parent} {'==>' if i in best else '-->'} n{i}")
        elif parent in kept:
            hidden[parent] += 1
    lines += [f'  n{i} -.- m{i}(["{n} more"])' for i, n in sorted(hidden.items()) if n]
    return "\n".join([*lines, STYLES]) + "\n"


def _shape(picture: Picture, i: int) -> str:
    columns = picture.columns
    label = _escaped(columns["text"][i] if i else picture.question)
    if columns["reward"][i] is not None:
        label += f"<br/>{columns['reward'][i]:.2f}"
    if columns["dead"][i] is not None:
        label += f"<br/>✕ {_escaped(columns['dead'][i])}"
    if i and i == picture.chosen:
        label += " ★"
    return f'(["{label}"])' if columns["terminal"][i] else f'["{label}"]'


def _kind(picture: Picture, i: int, best: set[int], inner: set[int | None]) -> str:
    if i in best:
        return ":::best"
    if picture.columns["dead"][i] is not None:
        return ":::dead"
    return "" if i in inner or picture.columns["terminal"][i] else ":::open"


def _escaped(text: str) -> str:
    """One line in which only letters, digits, spaces and harmless signs stand for themselves; no Markdown list."""
    line = " ".join(text.split()) or "(empty)"
    line = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    line = "".join(c if c.isalnum() or c in " .,:+-=()/?!…" else f"#{ord(c)};" for c in line)
    return re.sub(r"^(\d*)([-+.])", lambda found: f"{found[1]}#{ord(found[2])};", line)
