"""What choosing among n solutions of a question is worth: best-of-n, votes, and how sure that is."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

FOLDS = 5
Unit = TypeVar("Unit")


@dataclass(frozen=True, slots=True)
class Pool:
    """The solutions of one question: whether each is right, and which answer it gives (None: none)."""

    right: tuple[bool, ...]
    keys: tuple[str | None, ...]


def any_of(pool: Pool, n: int) -> float:
    """P(one of n is right) = 1 - C(wrong, n) / C(all, n): what no verifier can beat (Chen et al., arXiv 2107.03374)."""
    size = len(pool.right)
    return 1 - math.comb(size - sum(pool.right), n) / math.comb(size, n)


def best_of(pool: Pool, scores: Sequence[float | None], n: int) -> float:
    """P(the best-scored of n is right), over all subsets of n solutions exactly; ties are broken at random.

        sum_v [C(below_v + at_v, n) - C(below_v, n)] / C(all, n) * right_v / at_v

    over the levels v of the score: at_v solutions have it, right_v of these are right, below_v score less. As in a
    search, a solution without a score (None: its call failed) or without an answer is never chosen.
    """
    voted = any(key is not None for key in pool.keys)
    levels: dict[float, list[int]] = {}
    for score, right, key in zip(scores, pool.right, pool.keys, strict=True):
        if score is not None and (key is not None or not voted):
            level = levels.setdefault(score, [0, 0])
            level[0] += 1
            level[1] += right
    below = len(pool.right) - sum(at for at, _ in levels.values())
    worth = 0.0
    for score in sorted(levels):
        at, right = levels[score]
        ways = math.comb(below + at, n) - math.comb(below, n)
        worth += ways / math.comb(len(pool.right), n) * right / at
        below += at
    return worth


def vote(
    pool: Pool, weights: Sequence[float | None] | None, sizes: Sequence[int], orders: Sequence[Sequence[int]]
) -> list[float]:
    """P(the winner of a vote among n is right) for each n of `sizes`, the mean over the first n of each of `orders`.

    One solution, one vote (arXiv 2203.11171); with `weights` the sum of scores decides (arXiv 2206.02336), and who has
    none does not vote. Ties go to the more votes, as in a search, then to the answer that came first.
    """
    size, right = {}, {}
    for key, is_right in zip(pool.keys, pool.right, strict=True):
        size[key] = size.get(key, 0) + 1
        right[key] = right.get(key, 0) + is_right
    worth = [0.0] * len(sizes)
    for order in orders:
        tally: dict[str, tuple[float, int]] = {}
        start = 0
        for s, stop in enumerate(sizes):
            for i in order[start:stop]:
                key, weight = pool.keys[i], 1.0 if weights is None else weights[i]
                if key is not None and weight is not None:
                    mass, votes = tally.get(key, (0.0, 0))
                    tally[key] = (mass + weight, votes + 1)
            start = stop
            if tally:
                winner = max(tally, key=tally.__getitem__)
                worth[s] += right[winner] / size[winner]
    return [total / len(orders) for total in worth]


def orders_of(pool: Pool, n: int, draws: int, seed: str) -> list[list[int]]:
    """`draws` random orders of the pool, cut after `n`: the first k of each are a random subset of k.

    They are the rotations of random orders, so that each solution comes first equally often.
    """
    size, dice = len(pool.right), random.Random(seed)
    orders: list[list[int]] = []
    while len(orders) < draws:
        ring = dice.sample(range(size), size) * 2
        orders += [ring[k : k + n] for k in range(min(size, draws))]
    return orders


# How sure.


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over questions, and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float], seed: int, resamples: int = 1000) -> Mean:
    """The interval is the percentile bootstrap's over questions (Efron and Tibshirani 1993)."""
    n, dice = len(values), random.Random(seed)
    means = sorted(math.fsum(dice.choices(values, k=n)) / n for _ in range(resamples))
    low, high = means[round(0.025 * (resamples - 1))], means[round(0.975 * (resamples - 1))]
    return Mean(math.fsum(values) / n, low, high)


def paired_test(differences: Sequence[float], seed: int, resamples: int = 5000) -> float:
    """Two-sided p of the mean difference being none: Fisher's randomisation test, signs flipped at random.

    With differences of -1, 0 and 1 it is McNemar's exact test. All flips are tried for up to 12 differences other
    than 0, else `resamples` of them, drawn from `seed`.
    """
    moved = [d for d in differences if d]
    seen = abs(math.fsum(moved)) - 1e-9
    if len(moved) <= 12:
        flips = list(itertools.product((1, -1), repeat=len(moved)))
        return sum(abs(math.fsum(map(_times, moved, signs))) >= seen for signs in flips) / len(flips)
    dice, extreme = random.Random(seed), 1
    for _ in range(resamples):
        extreme += abs(math.fsum(map(_times, moved, dice.choices((1, -1), k=len(moved))))) >= seen
    return extreme / (resamples + 1)


def _times(a: float, b: float) -> float:
    return a * b


def apart(units: Sequence[Unit], seed: int) -> list[tuple[list[Unit], list[Unit]]]:
    """Cross-validation: each fold of `units`, and all the others, on which to choose what is then measured on the fold.

    Five folds, fewer where there are fewer units; one unit alone is its own judge.
    """
    shuffled = random.Random(seed).sample(units, len(units))
    folds = [shuffled[k::FOLDS] for k in range(min(FOLDS, len(units)))]
    others = ([unit for other in folds if other is not fold for unit in other] for fold in folds)
    return [(fold, rest or fold) for fold, rest in zip(folds, others, strict=True)]
