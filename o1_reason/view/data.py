"""What a picture is drawn from: the records of a tree as columns, each value of the type it ought to have."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

Columns = dict[str, list[Any]]
STEP = ("text", "terminal", "answer", "logprob", "tokens")
NODE = ("reward", "visits", "value", "samples", "drawn", "dead", "critique")
TEXTS = ("text", "answer", "dead", "critique")
FACTS = ("answer", "confidence", "stop", "ranking", "usage", "policy_usage", "verifier_usage", "seconds")


@dataclass(frozen=True, slots=True)
class Picture:
    """A search, ready to be drawn.

    columns  by field, the values of all nodes in order of their ids, which is the order of their creation
    chosen   the leaf of the best path; None if no path was finished
    told     the search itself chose that leaf; else it is the finished one with the best reward
    facts    what is known of the search as a whole: answer, confidence, stop, ranking, usage, seconds
    """

    question: str
    columns: Columns
    chosen: int | None
    told: bool
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.columns["parent"])

    def path(self) -> list[int]:
        """Ids from the chosen leaf up to the root; the root alone if nothing was chosen."""
        ids = [self.chosen or 0]
        while ids[-1]:
            ids.append(self.columns["parent"][ids[-1]])
        return ids

    def events(self) -> Iterator[dict[str, Any]]:
        """The search once more, as `show.TreeView` takes it in."""
        columns = self.columns
        for i in range(len(self)):
            if i:
                fields = {name: columns[name][i] for name in ("parent", "text", "terminal", "answer")}
                yield {"event": "created", "node": i, **fields}
            if columns["reward"][i] is not None:
                yield {"event": "scored", "node": i, "reward": columns["reward"][i]}
            if columns["dead"][i] is not None:
                yield {"event": "failed", "node": i, "error": columns["dead"][i]}


def load(file: Path) -> Picture:
    """A search from its JSON file; raises ConfigurationError for another, OSError for one that cannot be read."""
    try:
        return read(json.loads(file.read_text(encoding="utf-8-sig")))
    except ValueError as error:
        raise ConfigurationError(f"{file}: {error}") from error


def read(found: Any, chosen: int | None = None) -> Picture:
    """A search from its plain data; `chosen` is the leaf of the best path, if the data do not name it.

    Raises ConfigurationError for data that are no search.
    """
    try:
        tree = found.get("tree", found)
        columns = _columns(tree["nodes"])
        question = behind(str(tree["question"]), [str(step["text"]) for step in tree.get("prefix", ())])
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ConfigurationError(
            f"these data hold no search tree ({type(error).__name__}: {error}); make them with "
            'o1-reason solve "..." --json --tree > RESULT.json, or with Tree.to_data()'
        ) from error
    chosen = found.get("node") if chosen is None else chosen
    told = chosen is not None
    if told and not (isinstance(chosen, int) and 0 <= chosen < len(columns["parent"])):
        raise ConfigurationError(f"the chosen node {chosen!r} is not in the tree of {len(columns['parent'])} nodes")
    facts = {name: _plain(found[name]) for name in FACTS if found.get(name) is not None}
    return Picture(question, columns, chosen if told else _best(columns), told, facts)


def behind(question: str, steps: Sequence[str]) -> str:
    """What stands at the root: the question, and the steps that a search went on from."""
    return "\n".join([question, *steps])


def begun(question: str, seconds: float) -> Picture:
    """A search that began so many `seconds` ago, before anything has happened."""
    columns: Columns = {name: [None] for name in ("parent", *NODE, *STEP)}
    return Picture(question, {**columns, "text": [""]}, None, False, {"seconds": seconds})


def of_result(result: Any, seconds: float | None = None) -> Picture:
    """A search from its `Result`; `seconds` is how long it took."""
    found: dict[str, Any] = {
        name: getattr(result, name) for name in ("answer", "confidence", "stop", "ranking", "node")
    }
    for name in ("usage", "policy_usage", "verifier_usage"):
        found[name] = getattr(result, name).to_data()
    return read({**found, "seconds": seconds, "tree": result.tree.to_data()})


def _columns(nodes: list[Mapping[str, Any]]) -> Columns:
    """Fields by name; raises what `read` explains."""
    columns: Columns = {"parent": [_parent(i, node["parent"]) for i, node in enumerate(nodes)]}
    columns["parent"][0]  # a tree has a root
    for name in NODE:
        columns[name] = [_value(name, node[name]) for node in nodes]
    for name in STEP:
        columns[name] = [_value(name, node["step"][name]) if i else None for i, node in enumerate(nodes)]
    columns["text"][0] = ""
    return columns


def _parent(i: int, parent: Any) -> int | None:
    if i == 0 and parent is None:
        return None
    if isinstance(parent, int) and 0 <= parent < i:
        return parent
    raise ValueError(f"node {i} cannot have the parent {parent!r}")


def _value(name: str, value: Any) -> Any:
    """A text, a truth value or a finite number; None where it is unknown."""
    if name == "terminal":
        return bool(value)
    if value is None and name != "text":
        return None
    if name in TEXTS:
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{name} cannot be {value!r}")


def _plain(value: Any) -> Any:
    """The value without numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _best(columns: Columns) -> int | None:
    """The finished, living node with the best reward; of equals the one sampled most, then the oldest."""
    rewards, samples = columns["reward"], columns["samples"]
    ends = [i for i, end in enumerate(columns["terminal"]) if end and columns["dead"][i] is None]
    return max(ends, key=lambda i: (-1 if rewards[i] is None else rewards[i], samples[i], -i), default=None)
