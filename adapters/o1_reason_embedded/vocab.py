"""The token vocabulary of the embedded models: eleven symbols, then the integers 0..319, one token each.

A puzzle and its trace read, as text and as tokens::

    4 9 10 13 -> 24
    4 + 9 = 13 (left: 10 10 13)
    ...
    20 + 4 = 24 (left: 24)

Every trace of an n-number puzzle has the same length, so batches run in lock-step without padding.
"""

import re
from collections.abc import Iterable, Sequence

PAD, EOS, NEWLINE, ARROW, PLUS, MINUS, TIMES, DIVIDE, EQUALS, LEFT, CLOSE = range(11)
SYMBOLS = ("<pad>", "<eos>", "\n", "->", "+", "-", "*", "/", "=", "(left:", ")\n")
OPERATORS = (PLUS, MINUS, TIMES, DIVIDE)
NUMBER_0 = len(SYMBOLS)
MAX_NUMBER = 319
VOCAB_SIZE = NUMBER_0 + MAX_NUMBER + 1

_ID = {symbol: i for i, symbol in enumerate(SYMBOLS)}
_TOKEN = re.compile(r"\d+|->|\(left:|\)\n|[-+*/=\n]")


def prompt_ids(numbers: Sequence[int], target: int) -> list[int]:
    """``4 9 10 13 -> 24\\n`` as n + 3 token ids."""
    return [*(NUMBER_0 + number for number in numbers), ARROW, NUMBER_0 + target, NEWLINE]


def prompt_length(n: int) -> int:
    return n + 3


def step_length(left: int) -> int:
    """Tokens of the step that leaves `left` numbers: ``a op b = c (left:`` + left + ``)\\n``."""
    return 7 + left


def encode(text: str) -> list[int]:
    """Token ids of a prompt or of steps; raises ValueError on text outside the vocabulary."""
    ids: list[int] = []
    position = 0
    for match in _TOKEN.finditer(text):
        if text[position : match.start()].strip(" "):
            break
        token = match.group()
        if token.isdigit() and int(token) > MAX_NUMBER:
            break
        ids.append(NUMBER_0 + int(token) if token.isdigit() else _ID[token])
        position = match.end()
    if text[position:].strip(" "):
        raise ValueError(f"not in the vocabulary: {text[position:][:40]!r}")
    return ids


def decode(ids: Iterable[int]) -> str:
    """The text of token ids; `encode` is its inverse on prompts and steps."""
    words: list[str] = []
    for i in ids:
        word = str(i - NUMBER_0) if i >= NUMBER_0 else SYMBOLS[i]
        if words and words[-1][-1] != "\n" and word[-1] != "\n":
            words.append(" ")
        words.append(word)
    return "".join(words)
