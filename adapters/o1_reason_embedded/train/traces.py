"""Synthetic solution traces, by forward sampling: play random legal steps, call what comes out the target.

No solver is needed, every target is covered, and any number of numbers. Duplicates are removed; a row is
then drawn with weight (traces of its puzzle)^-1/2, half of the mass on target 24, the rest flat over the others.

Splits go by the multiset of four numbers and hold for all targets, and also for the four-number states that
five-number puzzles pass through: no test puzzle (ranks 901-1000) and none of `validation_puzzles` occurs in any trace.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from o1_reason.errors import ConfigurationError

from .. import vocab as v
from ..solver import solvable

Tokens = NDArray[np.int16]
MAX_TARGET = 100
MAX_START = 25


@cache
def ranked_puzzles() -> tuple[tuple[int, ...], ...]:
    """The 1,362 Game of 24 puzzles in the order of human difficulty; index 0 is rank 1."""
    text = resources.files("o1_reason_embedded").joinpath("puzzles24.txt").read_text()
    return tuple(tuple(sorted(map(int, line.split()))) for line in text.splitlines())


def _key(left: NDArray[np.int64]) -> NDArray[np.int64]:
    """One integer per row of up to five sorted numbers below 320."""
    return left @ (np.int64(320) ** np.arange(left.shape[1], dtype=np.int64))


@cache
def _kept_apart() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Multisets of numbers to 25, none of ranks 801-1000: 5 % for validation, and 5 % reserved, see `held_out`."""
    everything = _multisets(4, MAX_START)
    drawn = np.random.default_rng(24).random(len(everything))
    drawn[np.isin(_key(everything), _key(np.array(ranked_puzzles()[800:1000], dtype=np.int64)))] = 1
    return everything[drawn < 0.05], everything[(drawn >= 0.05) & (drawn < 0.1)]


@cache
def held_out() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted keys of (test and validation, reserved for reward-model data).

    The reserved multisets are kept from the policy, so that the reward model also sees how the policy fares on puzzles
    it has not memorised.
    """
    validation, reserved = _kept_apart()
    ranked = np.array(ranked_puzzles()[800:1000], dtype=np.int64)
    return np.sort(_key(np.concatenate([ranked, validation]))), np.sort(_key(reserved))


@cache
def validation_puzzles() -> tuple[tuple[int, ...], ...]:
    """Puzzles with target 24 that decide and are never trained on: ranks 801-900, then those with numbers to 25."""
    drawn = map(tuple, _kept_apart()[0].tolist())
    return (*ranked_puzzles()[800:900], *(numbers for numbers in drawn if solvable(numbers, 24)))


def _multisets(n: int, most: int) -> NDArray[np.int64]:
    grid = np.stack(np.meshgrid(*[np.arange(1, most + 1)] * n, indexing="ij"), -1).reshape(-1, n)
    return grid[(np.diff(grid, axis=1) >= 0).all(1)].astype(np.int64)


@dataclass
class Pool:
    """Distinct traces of puzzles with `n` numbers; `tokens` is (rows, length), eos included."""

    n: int
    tokens: Tokens
    target: NDArray[np.int64]
    weight: NDArray[np.float64]  # cumulative, last is 1

    def draw(self, rng: np.random.Generator, rows: int) -> Tokens:
        return self.tokens[np.searchsorted(self.weight, rng.random(rows))]


def play(rng: np.random.Generator, n: int, most: int, rows: int, least: int = 1) -> tuple[Tokens, NDArray[np.int64]]:
    """Up to `rows` random legal traces: tokens (kept, length) and keys of the four-number state (kept,)."""
    left = np.sort(rng.integers(least, most + 1, (rows, n), dtype=np.int64), axis=1)
    pieces = [left + v.NUMBER_0, np.full((rows, 3), v.ARROW, np.int64)]
    pieces[1][:, 2] = v.NEWLINE
    four = _key(left) if n == 4 else np.zeros(rows, np.int64)
    for size in range(n, 1, -1):
        r = np.arange(len(left))
        i = rng.integers(0, size, len(left))
        j = (i + rng.integers(1, size, len(left))) % size
        low, high = left[r, np.minimum(i, j)], left[r, np.maximum(i, j)]
        op = rng.choice(4, len(left), p=(0.3, 0.25, 0.3, 0.15))
        exact = (low > 0) & (high % np.maximum(low, 1) == 0)
        value = np.choose(op, (low + high, high - low, low * high, high // np.maximum(low, 1)))
        legal = (value <= v.MAX_NUMBER) & ((op != 3) | exact)
        first, second = np.where(op % 2, high, low), np.where(op % 2, low, high)
        keep = np.ones((len(left), size), bool)
        keep[r, i] = keep[r, j] = False
        rest = left[keep].reshape(len(left), size - 2)
        left = np.sort(np.concatenate([rest, value[:, None]], 1), axis=1)
        step = [first + v.NUMBER_0, op + v.PLUS, second + v.NUMBER_0, np.full(len(left), v.EQUALS)]
        step += [value + v.NUMBER_0, np.full(len(left), v.LEFT)]
        pieces.append(np.stack(step, 1))
        pieces += [left + v.NUMBER_0, np.full((len(left), 1), v.CLOSE)]
        pieces = [piece[legal] for piece in pieces]
        left, four = left[legal], four[legal]
        if size == 5:
            four = _key(left)
    pieces[1][:, 1] = left[:, 0] + v.NUMBER_0
    tokens = np.concatenate([*pieces, np.full((len(left), 1), v.EOS)], 1).astype(np.int16)
    good = (left[:, 0] >= 1) & (left[:, 0] <= MAX_TARGET)
    return tokens[good], four[good]


def played_puzzles(seed: int, n: int, *, reserved: bool = False) -> list[tuple[int, ...]]:
    """`n` distinct puzzles of four numbers that random plays brought to 24, half with numbers to 13 as far as they go.

    None is of validation or test; `reserved`: all are of those kept from the policy's first training.
    """
    rng = np.random.default_rng([seed, 8])
    never, kept_back = held_out()
    found: dict[int, dict[tuple[int, ...], None]] = {13: {}, MAX_START: {}}
    for turn in range(40):
        for most, kept in found.items():
            tokens, four = play(rng, 4, most, 200_000)
            good = (tokens[:, 5] == v.NUMBER_0 + 24) & ~np.isin(four, never)
            if reserved:
                good &= np.isin(four, kept_back)
            kept.update(dict.fromkeys(map(tuple, (tokens[good, :4].astype(int) - v.NUMBER_0).tolist())))
        if len(found[MAX_START]) >= n and (turn > 3 or len(found[13]) >= n // 2):
            break
    cards, others = (list(kept) for kept in found.values())
    few = [cards[i] for i in rng.permutation(len(cards))[: (n + 1) // 2]]
    rest = [puzzle for puzzle in others if puzzle not in set(few)]
    puzzles = few + [rest[i] for i in rng.permutation(len(rest))[: n - len(few)]]
    if len(puzzles) < n:
        raise ConfigurationError(f"only {len(puzzles)} training puzzles were found; ask for so many at most")
    return [puzzles[i] for i in rng.permutation(n)]


def pool(seed: int, n: int, most: int, samples: int, keep: int, *, reserved: bool = False) -> Pool:
    """Sample, split, deduplicate, weigh. `reserved`: the puzzles kept for reward-model data instead."""
    rng = np.random.default_rng([seed, n, most, reserved])
    never, kept_back = held_out()
    chunks: list[Tokens] = []
    seen = np.empty(0, np.uint64)
    factors = rng.integers(1, 2**63, 64, dtype=np.uint64) | np.uint64(1)
    for start in range(0, samples, 1_000_000):
        tokens, four = play(rng, n, most, min(1_000_000, samples - start))
        wanted = ~np.isin(four, never) & (np.isin(four, kept_back) == reserved)
        tokens = tokens[wanted]
        hashes = tokens.astype(np.uint64) @ factors[: tokens.shape[1]]
        hashes, first = np.unique(hashes, return_index=True)
        fresh = ~np.isin(hashes, seen)
        seen = np.concatenate([seen, hashes[fresh]])
        tokens = tokens[np.sort(first[fresh])]
        is24 = tokens[:, n + 1] == v.NUMBER_0 + 24
        share = keep / (samples / 1_000_000) / max(len(tokens), 1)
        chunks.append(tokens[is24 | (rng.random(len(tokens)) < share)])
    tokens = np.concatenate(chunks)
    target = tokens[:, n + 1].astype(np.int64) - v.NUMBER_0
    puzzle = tokens[:, : n + 2].astype(np.uint64) @ factors[: n + 2]
    _, which, count = np.unique(puzzle, return_inverse=True, return_counts=True)
    weight = count[which] ** -0.5
    mass = np.bincount(target, weight, MAX_TARGET + 1)
    weight *= np.where(target == 24, 0.5 / max(mass[24], 1e-9), 0.5 / 99 / np.maximum(mass[target], 1e-9))
    cumulative = np.cumsum(weight)
    return Pool(n, tokens, target, cumulative / cumulative[-1])


def check(tokens: NDArray[np.integer], n: int) -> NDArray[np.bool_]:
    """Which finished traces (rows, length) obey the rules: numbers at hand, arithmetic right, ends in the target."""
    t = tokens.astype(np.int64)
    rows = np.arange(len(t))
    left = t[:, :n] - v.NUMBER_0
    target = t[:, n + 1] - v.NUMBER_0
    good = np.ones(len(t), bool)
    at = v.prompt_length(n)
    for size in range(n, 1, -1):
        a, op, b, equals, c, opening = t[:, at : at + 6].T
        a, b, c = a - v.NUMBER_0, b - v.NUMBER_0, c - v.NUMBER_0
        shown = t[:, at + 6 : at + 5 + size] - v.NUMBER_0
        good &= (equals == v.EQUALS) & (opening == v.LEFT) & (t[:, at + 5 + size] == v.CLOSE)
        good &= (a >= 0) & (b >= 0) & (c >= 0)
        good &= np.select(
            [op == v.PLUS, op == v.MINUS, op == v.TIMES, op == v.DIVIDE],
            [a + b == c, a - b == c, a * b == c, (b > 0) & (b * c == a)],
            False,
        )
        kept = left.copy()
        for operand in (a, b):
            hit = kept == operand[:, None]
            good &= hit.any(1)
            kept[rows, hit.argmax(1)] = np.where(hit.any(1), -1, kept[rows, hit.argmax(1)])
        kept = np.sort(kept, axis=1)[:, 2:]
        left = np.sort(np.concatenate([kept, c[:, None]], 1), axis=1)
        good &= (left == shown).all(1)
        at += v.step_length(size - 1)
    return good & (left[:, 0] == target) & (t[:, at] == v.EOS)
