"""How well scores tell right from wrong: AUC, calibration, first errors. Pairs are (score in [0, 1], right)."""

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

Pair = tuple[float, bool]
BINS = 10


@dataclass(frozen=True, slots=True)
class Area:
    """The area under a ROC curve in [0, 1], and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def area(pairs: Sequence[Pair], clusters: Sequence[Hashable]) -> Area | None:
    """AUC = P(right one scores higher) + P(tie) / 2, the Mann-Whitney statistic; None without both kinds.

    Solutions of one question are not independent: the interval is +- 1.96 standard errors by Obuchowski, "Nonparametric
    analysis of clustered ROC curve data" (Biometrics 53, 1997), which sums placement values by cluster. Without two
    clusters there is none, and it is [0, 1].
    """
    order = sorted(range(len(pairs)), key=lambda i: pairs[i][0])
    positives = sum(right for _, right in pairs)
    negatives = len(pairs) - positives
    if not positives or not negatives:
        return None
    placement = [0.0] * len(pairs)  # of a right one: share of wrong ones below; of a wrong one: of right ones above
    below, above = 0, positives
    for _, tied in groupby(order, key=lambda i: pairs[i][0]):
        level = list(tied)
        right = sum(pairs[i][1] for i in level)
        wrong = len(level) - right
        above -= right
        for i in level:
            placement[i] = (below + wrong / 2) / negatives if pairs[i][1] else (above + right / 2) / positives
        below += wrong
    value = math.fsum(p for p, (_, right) in zip(placement, pairs, strict=True) if right) / positives
    error = _standard_error(value, pairs, placement, clusters)
    return Area(value, max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error))


def _standard_error(
    value: float, pairs: Sequence[Pair], placement: Sequence[float], clusters: Sequence[Hashable]
) -> float:
    sums: dict[Hashable, list[float]] = {}  # cluster: of the right and the wrong, excess placement and number
    for (_, right), place, cluster in zip(pairs, placement, clusters, strict=True):
        entry = sums.setdefault(cluster, [0.0, 0.0, 0, 0])
        entry[0 if right else 1] += place - value
        entry[2 if right else 3] += 1
    total = [sum(entry[k] for entry in sums.values()) for k in (2, 3)]
    having = [sum(entry[k] > 0 for entry in sums.values()) for k in (2, 3)]
    if min(having) < 2:
        return math.inf
    variance = 2 * len(sums) / (len(sums) - 1) * math.fsum(e[0] * e[1] for e in sums.values()) / (total[0] * total[1])
    for k in (0, 1):
        variance += having[k] / (having[k] - 1) * math.fsum(e[k] ** 2 for e in sums.values()) / total[k] ** 2
    return math.sqrt(max(variance, 0.0))


def area_within(pairs: Sequence[Pair], clusters: Sequence[Hashable]) -> float | None:
    """AUC of pairs of one cluster only: how well solutions of the same question are told apart.

    An AUC over all pairs also rewards a verifier that merely knows hard questions from easy ones.
    """
    by: dict[Hashable, list[Pair]] = {}
    for pair, cluster in zip(pairs, clusters, strict=True):
        by.setdefault(cluster, []).append(pair)
    weight = total = 0.0
    for group in by.values():
        found = area(group, [0] * len(group))
        if found is not None:
            right = sum(r for _, r in group)
            weight += right * (len(group) - right)
            total += right * (len(group) - right) * found.value
    return total / weight if weight else None


def roc(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """(false positive rate, true positive rate) at each threshold, from (0, 0) to (1, 1)."""
    positives = sum(right for _, right in pairs)
    negatives = len(pairs) - positives
    points, hit, miss = [(0.0, 0.0)], 0, 0
    for _, tied in groupby(sorted(pairs, key=lambda pair: -pair[0]), key=lambda pair: pair[0]):
        for _, right in tied:
            hit, miss = hit + right, miss + (not right)
        points.append((miss / max(negatives, 1), hit / max(positives, 1)))
    return points


@dataclass(frozen=True, slots=True)
class Bin:
    """Scores from `low` to `high`: how many, their mean, and the share of right ones among them."""

    low: float
    high: float
    n: int
    score: float
    right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether a score is the probability of being right.

    ece        expected calibration error, sum_b n_b / n |right_b - score_b|, over `bins`: ten of equal width
               (Naeini et al. 2015; Guo et al., arXiv 1706.04599)
    adaptive   the same over ten bins of equal numbers (Nguyen and O'Connor, arXiv 1508.05154); equal scores share one
    brier      mean (score - right)^2; always saying the base rate has `base_brier`
    """

    n: int
    ece: float
    adaptive: float
    brier: float
    base_brier: float
    bins: tuple[Bin, ...]


def calibration(pairs: Sequence[Pair]) -> Calibration | None:
    """None where there is nothing to judge."""
    if not pairs:
        return None
    n = len(pairs)
    share = sum(right for _, right in pairs) / n
    bins = _equal_width(pairs)
    brier = math.fsum((score - right) ** 2 for score, right in pairs) / n
    return Calibration(n, _ece(bins), _ece(_equal_mass(pairs)), brier, share * (1 - share), tuple(bins))


def _ece(bins: Sequence[Bin]) -> float:
    return math.fsum(b.n * abs(b.right - b.score) for b in bins) / sum(b.n for b in bins)


def _bin(low: float, high: float, pairs: Sequence[Pair]) -> Bin:
    n = len(pairs)
    return Bin(low, high, n, math.fsum(s for s, _ in pairs) / n, sum(right for _, right in pairs) / n)


def _equal_width(pairs: Sequence[Pair]) -> list[Bin]:
    """Ten bins [k/10, (k+1)/10), the last with 1 in it; empty ones are left out."""
    by: dict[int, list[Pair]] = {}
    for pair in pairs:
        by.setdefault(min(int(pair[0] * BINS), BINS - 1), []).append(pair)
    return [_bin(k / BINS, (k + 1) / BINS, by[k]) for k in sorted(by)]


def _equal_mass(pairs: Sequence[Pair]) -> list[Bin]:
    """At most ten bins, each closed once it holds a tenth; equal scores are never parted."""
    bins: list[Bin] = []
    held: list[Pair] = []
    for _, tied in groupby(sorted(pairs, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
        held += tied
        if len(held) * BINS >= len(pairs):
            bins.append(_bin(held[0][0], held[-1][0], held))
            held = []
    return [*bins, _bin(held[0][0], held[-1][0], held)] if held else bins


Trace = tuple[Sequence[float], int]  # the rewards of a solution's steps; index of its first wrong step, or -1


@dataclass(frozen=True, slots=True)
class FirstError:
    """Finding the first wrong step, as ProcessBench measures it (arXiv 2412.06559, section 3).

    A solution's first error is predicted at its first reward below `threshold`; none below: no error.
    `error_accuracy` is the share of solutions with an error where that is the very step, `correct_accuracy` the share
    of those without where none is found, `f1` their harmonic mean.
    """

    f1: float
    error_accuracy: float
    correct_accuracy: float
    threshold: float
    erroneous: int
    correct: int


def predict(rewards: Sequence[float], threshold: float) -> int:
    """Index of the first reward below `threshold`, -1 if there is none."""
    return next((i for i, reward in enumerate(rewards) if reward < threshold), -1)


def first_error(outcomes: Iterable[tuple[int, int]], threshold: float) -> FirstError | None:
    """From (predicted, true) indices; None where all solutions have an error, or none has."""
    hits, totals = [0, 0], [0, 0]  # with an error, without
    for predicted, true in outcomes:
        totals[true < 0] += 1
        hits[true < 0] += predicted == true
    if not all(totals):
        return None
    found, clean = hits[0] / totals[0], hits[1] / totals[1]
    f1 = 2 * found * clean / (found + clean) if found + clean else 0.0
    return FirstError(f1, found, clean, threshold, *totals)


def best_threshold(traces: Sequence[Trace]) -> float:
    """The threshold with the greatest F1 on `traces`, in the middle of the range where it is so; 0.5 without any.

    A solution is got right by the thresholds in (low, high]: low is the reward of its wrong step (no step: 0), high
    the least reward before that. So the count at t is the number of highs >= t less that of lows >= t.
    """
    ranges: list[tuple[list[float], list[float]]] = [([], []), ([], [])]  # with an error, without
    totals = [0, 0]
    for rewards, true in traces:
        low = rewards[true] if true >= 0 else -1.0
        high = min(rewards[:true] if true >= 0 else rewards, default=1.0)
        totals[true < 0] += 1
        if low < high:
            ranges[true < 0][0].append(low)
            ranges[true < 0][1].append(high)
    edges = sorted({edge for lows, highs in ranges for edge in (*lows, *highs)} | {0.0})
    for lows, highs in ranges:
        lows.sort()
        highs.sort()

    def quality(t: float) -> float:
        shares = [
            (bisect_left(lows, t) - bisect_left(highs, t)) / max(total, 1)
            for (lows, highs), total in zip(ranges, totals, strict=True)
        ]
        return 2 * shares[0] * shares[1] / (shares[0] + shares[1]) if sum(shares) else 0.0

    best = max(range(1, len(edges)), key=lambda i: quality(edges[i]), default=0)
    return (max(edges[best - 1], 0.0) + edges[best]) / 2 if best else 0.5
