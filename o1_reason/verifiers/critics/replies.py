"""A judge's reply, read: JSON as models write it, numbers on a scale, and the probability of a word in it.

Only the reply itself is read. What is not clear is an `UnreadableError`, never a guess: two verdicts that differ, a
number that could stand on two scales, an object that cannot be read to its end.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...chat import Reply

_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(r"'((?:[^'\\]|\\.|'(?!\s*[,:}\]]))*)'", re.DOTALL)
_BARE = re.compile(r"[^,:{}\[\]\"'\n]+")
_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(%)|(?:/|out of|of)\s*(\d+(?:\.\d+)?))?", re.IGNORECASE)
_THOUGHT = "</think>"  # some servers leave the thoughts of reasoning models in the reply
_DEEPEST = 8
_CUT = 4  # tokens at the end of a reply that need not show in its text: end of turn, a stop string


class UnreadableError(Exception):
    """A reply that holds no clear judgement."""


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar of a reply, as written, and where it begins in the reply's text."""

    text: str
    at: int


Node = Value | dict[str, "Node"] | list["Node"]


def read_object(reply: Reply, wanted: Sequence[str]) -> dict[str, Node]:
    """The object with at least one of the keys `wanted` that the reply gives, in JSON or as lines "key: value".

    Fences and prose around it, single quotes, bare words and trailing commas are put up with. What may be quoted from
    a candidate, an object in the middle of a line or lines that are not the last, does not count. Raises
    UnreadableError.
    """
    if reply.refusal or reply.finish == "filter":
        raise UnreadableError("refused")
    thought = reply.text.rfind(_THOUGHT)
    start = 0 if thought < 0 else thought + len(_THOUGHT)
    found = _objects(reply.text, start, wanted) or _lines(reply.text, start, wanted)
    if not found:
        raise UnreadableError("cut off by max_tokens" if reply.finish == "length" else "no verdict in it")
    if any(_plain(other, wanted) != _plain(found[0], wanted) for other in found):
        raise UnreadableError("several verdicts in it that differ")
    return found[-1]


def word(node: Node | None, words: Mapping[str, str]) -> tuple[str, int]:
    """What a scalar means, by `words` (in lower case), and where it begins. Raises UnreadableError."""
    if not isinstance(node, Value):
        raise UnreadableError("no verdict in it")
    key = node.text.strip(" \t\r\n.!*_()\"'`").casefold()
    if key not in words:
        raise UnreadableError(f"not one of {', '.join(dict.fromkeys(words.values()))}")
    return words[key], node.at


def fraction(node: Node | None, top: int) -> float | None:
    """A number on a scale from 0 to `top`, as a share of it: "7", "7.5", "7/10", "70%". None: no number, or no clear
    one. A decimal up to 1 could be meant on a scale from 0 to 1, a number above `top` as a percentage."""
    match = _NUMBER.fullmatch(node.text.strip(" *_\"'`.")) if isinstance(node, Value) else None
    if match is None:
        return None
    number = float(match[1])
    if match[2]:
        most = 100.0
    elif match[3]:
        most = float(match[3])
    elif "." in match[1] and 0 < number <= 1:
        return None
    else:
        most = float(top)
    return number / most if most > 0 and number <= most else None


def text_of(node: Node | None) -> str:
    """A scalar's text, "" where there is none."""
    return node.text if isinstance(node, Value) else ""


def probabilities(reply: Reply, at: int, words: Mapping[str, str]) -> dict[str, float] | None:
    """How probable the model held each meaning of `words` at offset `at` of its reply; they add up to 1.

    None where the reply carries no log-probabilities there. The alternatives of the token in which the word begins
    are sorted by the word that they spell or begin to spell; others do not count.
    """
    span = _token_at(reply.text, reply.top_logprobs, at)
    if span is None:
        return None
    start, top = span
    before = reply.text[start:at]
    mass = dict.fromkeys(words.values(), 0.0)
    for token, logprob in top.items():
        begun = re.match(r"\s*(\w+)", token[len(before) :]) if token.startswith(before) else None
        meaning = next((words[w] for w in words if begun and _spells(begun[1].casefold(), w)), None)
        if meaning is not None:
            mass[meaning] += math.exp(logprob)
    total = sum(mass.values())
    return {meaning: share / total for meaning, share in mass.items()} if total > 0 else None


def _spells(piece: str, whole: str) -> bool:
    return piece == whole or (len(whole) > 1 and whole.startswith(piece))


def _token_at(text: str, tops: Sequence[Mapping[str, float]], at: int) -> tuple[int, Mapping[str, float]] | None:
    """The token that covers offset `at`: where it begins, and its alternatives.

    A reply tells the alternatives of each token and not which was drawn. They are laid along the text from its end,
    since a verdict stands near the end; of several ways to lay them, the likeliest counts.
    """
    text = text.rstrip()  # adapters may strip replies or not
    for cut in range(min(_CUT, len(tops))):
        paths: dict[int, tuple[float, tuple[int, int]]] = {len(text): (0.0, (-1, -1))}
        for i in range(len(tops) - 1 - cut, -1, -1):
            paths = _step_back(text, tops[i], i, at, paths)
            if not paths or all(end <= at for end in paths):
                break
        done = [(score, token) for end, (score, token) in paths.items() if end <= at and token[0] >= 0]
        if done:
            start, i = max(done)[1]
            return start, tops[i]
    return None


def _step_back(
    text: str, top: Mapping[str, float], i: int, at: int, paths: Mapping[int, tuple[float, tuple[int, int]]]
) -> dict[int, tuple[float, tuple[int, int]]]:
    """Paths, by the offset at which their earliest token begins, with token `i` laid before them."""
    found: dict[int, tuple[float, tuple[int, int]]] = {}
    for end, (score, token_at) in paths.items():
        if end <= at:  # it has the token that was looked for
            if end not in found or found[end][0] < score:
                found[end] = score, token_at
            continue
        for token, logprob in top.items():
            piece = token.rstrip() if end == len(text) else token
            if text[:end] == piece.lstrip():
                piece = text[:end]
            if not piece or not text.endswith(piece, 0, end):
                continue
            start = end - len(piece)
            if start not in found or found[start][0] < score + logprob:
                found[start] = score + logprob, (start, i) if start <= at else (-1, -1)
    return found


def _plain(node: Node | None, wanted: Sequence[str] = ()) -> Any:
    """For comparison: without offsets, and of an object only what is `wanted`."""
    if isinstance(node, Value):
        return node.text.strip().casefold()
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, dict):
        return {key: _plain(item) for key, item in node.items() if not wanted or key in wanted}
    return None


def _objects(text: str, start: int, wanted: Sequence[str]) -> list[dict[str, Node]]:
    """The objects in `text` that have a key `wanted`, begin a line and stand in no other object."""
    ours = re.compile(r"\{\s*[\"']?(?:critique|" + "|".join(wanted) + r")\b", re.IGNORECASE)
    own_line = re.compile(r"(?:.*\n)?[ \t`*]*\Z", re.DOTALL)
    found: list[dict[str, Node]] = []
    at = text.find("{", start)
    while at >= 0:
        try:
            node, after = _node(text, at)
        except UnreadableError:
            if ours.match(text, at):  # a verdict must not be taken from inside of what is broken
                raise
            after = at + 1
        else:
            if isinstance(node, dict) and any(key in node for key in wanted) and own_line.match(text[start:at]):
                found.append(node)
        at = text.find("{", after)
    return found


def _lines(text: str, start: int, wanted: Sequence[str]) -> list[dict[str, Node]]:
    """What stands as "key: value" on lines of its own at the end; or else the only line, as the value of each key."""
    said = text[start:].strip()
    if not said:
        return []
    line = re.compile(
        r"^[ \t*_#>-]*(" + "|".join(wanted) + r")[ \t*_]*[:=][ \t*_]*(\S[^\n]*)", re.IGNORECASE | re.MULTILINE
    )
    found: dict[str, Node] = {}
    end = start
    for match in line.finditer(text, start):
        key, value, end = match[1].casefold(), Value(match[2], match.start(2)), match.end()
        if _plain(found.setdefault(key, value)) != _plain(value):
            raise UnreadableError("several verdicts in it that differ")
    if found:
        return [] if text[end:].strip() else [found]
    return [] if "\n" in said else [dict.fromkeys(wanted, Value(said, text.index(said, start)))]


def _node(text: str, at: int, depth: int = 0) -> tuple[Node, int]:
    """The value that begins at `at`, and the offset behind it. Raises UnreadableError."""
    at = _space(text, at)
    first = text[at : at + 1]
    if depth > _DEEPEST:
        raise UnreadableError("nested too deep")
    if first == "{":
        return _members(text, at, depth)
    if first == "[":
        return _items(text, at, depth)
    return _scalar(text, at)


def _members(text: str, at: int, depth: int) -> tuple[dict[str, Node], int]:
    members: dict[str, Node] = {}
    at = _space(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _scalar(text, at)
        at = _space(text, at)
        if text[at : at + 1] != ":":
            raise UnreadableError("broken JSON")
        node, at = _node(text, at + 1, depth + 1)
        name = key.text.strip().casefold()
        if _plain(members.setdefault(name, node)) != _plain(node):
            raise UnreadableError(f"two values for {name!r}")
        at = _comma(text, at, "}")
    return members, at + 1


def _items(text: str, at: int, depth: int) -> tuple[list[Node], int]:
    items: list[Node] = []
    at = _space(text, at + 1)
    while text[at : at + 1] != "]":
        node, at = _node(text, at, depth + 1)
        items.append(node)
        at = _comma(text, at, "]")
    return items, at + 1


def _scalar(text: str, at: int) -> tuple[Value, int]:
    for pattern in (_DOUBLE, _SINGLE):
        if match := pattern.match(text, at):
            return Value(_unescaped(match[1]), at + 1), match.end()
    match = _BARE.match(text, at)
    if match is None or not match[0].strip():
        raise UnreadableError("broken JSON")
    return Value(match[0].strip(), at), match.end()


def _unescaped(raw: str) -> str:
    try:
        return json.loads(f'"{raw}"', strict=False) if "\\" in raw else raw
    except ValueError:  # LaTeX, mostly
        return raw


def _comma(text: str, at: int, end: str) -> int:
    """Behind the comma, if there is one; it may also stand before the `end`."""
    at = _space(text, at)
    if text[at : at + 1] == ",":
        return _space(text, at + 1)
    if text[at : at + 1] != end:
        raise UnreadableError("broken JSON")
    return at


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
