"""From judged solutions to the audit: every figure that the reports show."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from ..aggregate import Aggregate, combine
from ..mdp import Usage
from .data import Truth
from .judge import Judged, Judgement
from .metrics import (
    Area,
    Calibration,
    FirstError,
    Pair,
    area,
    area_within,
    best_threshold,
    calibration,
    first_error,
    predict,
    roc,
)
from .selection import Pool, apart
from .trial import Trial, run_trial
from .verdict import Verdict, verdict_of

AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What the rewards of a solution are worth once made into one score by `aggregate`.

    `auc` over all solutions, `within` over those of the same question; `ece` and `brier` of the score taken as the
    probability that the solution is right. None where the labels do not allow it.
    """

    aggregate: Aggregate
    auc: Area | None
    within: float | None
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Steps:
    """Rewards of single steps against their labels."""

    n: int
    wrong: int
    auc: Area | None
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Cost:
    """`usage` of all judgements, `paid` without what the ledger had; `seconds` of calls per solution asked."""

    usage: Usage
    paid: Usage
    replayed: int
    seconds: float | None
    wall: float


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether a verifier is worth using, and what that rests on.

    solutions      judged, failed ones included
    failed         got no score; `failures` tells why: kind, how many, first message
    unreadable     replies that could not be read, asked again or left out of a mean, as far as the verifier counts them
    left_out       not judged for want of budget or time (`stop`)
    right          share of right solutions among those whose outcome is known
    process        one reward per step; otherwise one per solution, and aggregations are all the same
    aggregate      the one that is best on all the data: where the verdict says so, by best-of-n, otherwise by AUC
    first_error    threshold given, or chosen apart from what it is measured on (`threshold_chosen`)
    trial          choosing among n solutions, against a vote; None where no question has several
    """

    verifier: str
    solutions: int
    questions: int
    failed: int
    failures: tuple[tuple[str, int, str], ...]
    unreadable: int
    left_out: int
    stop: str
    warning: str
    right: float | None
    process: bool
    aggregate: Aggregate
    aggregations: tuple[Aggregation, ...]
    roc: tuple[tuple[float, float], ...]
    steps: Steps | None
    first_error: FirstError | None
    threshold_chosen: bool
    trial: Trial | None
    cost: Cost
    verdict: Verdict

    def to_data(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @property
    def chosen(self) -> Aggregation:
        return next(one for one in self.aggregations if one.aggregate == self.aggregate)


def outcome(truth: Truth) -> bool | None:
    """Whether a solution is right: by its answer, or where that is not known by its steps; None: nobody knows."""
    if truth.correct is not None:
        return truth.correct
    return None if truth.first_error is None else truth.first_error < 0


def summarise(
    name: str, found: Judgement, *, threshold: float | None = None, best_of: int | None = None, seed: int = 0
) -> Audit:
    """Raises ConfigurationError if no question has `best_of` solutions."""
    judged = found.judged
    process = any(one.rewards is not None and len(one.rewards) == one.steps > 1 for one in judged)
    aggregates = AGGREGATES if process else AGGREGATES[:1]
    aggregations = tuple(_aggregation(judged, aggregate) for aggregate in aggregates)
    trial = run_trial(_pools(judged), aggregates, best_of, seed)
    best = max(aggregations, key=_auc_of)
    aggregate = trial.aggregate if trial else best.aggregate
    outcomes = [right for one in judged if (right := outcome(one.truth)) is not None]
    first = _first_error(judged, threshold, seed) if process else None
    apart = None if trial else _auc_apart(judged, aggregates, seed)
    scored = [one for one in judged if one.rewards is not None]
    return Audit(
        verifier=name,
        solutions=len(judged),
        questions=len({one.truth.group for one in judged}),
        failed=len(judged) - len(scored),
        failures=tuple((kind, count, first) for kind, (count, first) in sorted(found.failures.items())),
        unreadable=found.unreadable,
        left_out=found.left_out,
        stop=found.stop,
        warning=found.warning,
        right=sum(outcomes) / len(outcomes) if outcomes else None,
        process=process,
        aggregate=aggregate,
        aggregations=aggregations,
        roc=tuple(_thin(roc(_outcomes(judged, aggregate)[0]))),
        steps=_steps(scored) if process else None,
        first_error=first,
        threshold_chosen=threshold is None,
        trial=trial,
        cost=_cost(found),
        verdict=verdict_of(len(scored), trial, best.auc, apart, first, found.stop),
    )


def _outcomes(judged: Sequence[Judged], aggregate: Aggregate) -> tuple[list[Pair], list[str]]:
    """Scores against outcomes, with their questions."""
    pairs: list[Pair] = []
    groups: list[str] = []
    for one in judged:
        right = outcome(one.truth)
        if one.rewards is not None and right is not None:
            pairs.append((combine(one.rewards, aggregate), right))
            groups.append(one.truth.group)
    return pairs, groups


def _aggregation(judged: Sequence[Judged], aggregate: Aggregate) -> Aggregation:
    pairs, groups = _outcomes(judged, aggregate)
    return Aggregation(aggregate, area(pairs, groups), area_within(pairs, groups), calibration(pairs))


def _auc_of(one: Aggregation) -> float:
    return one.auc.value if one.auc else 0.0


def _auc_apart(judged: Sequence[Judged], aggregates: Sequence[Aggregate], seed: int) -> float | None:
    """AUC of the best aggregation, on solutions that had no part in its choice; the mean over folds of questions."""
    by: dict[str, list[Judged]] = {}
    for one in judged:
        by.setdefault(one.truth.group, []).append(one)

    def measure(aggregate: Aggregate, groups: Sequence[str]) -> Area | None:
        return area(*_outcomes([one for group in groups for one in by[group]], aggregate))

    def quality(aggregate: Aggregate, groups: Sequence[str]) -> float:
        found = measure(aggregate, groups)
        return found.value if found else 0.0

    found = [
        measure(max(aggregates, key=lambda aggregate: quality(aggregate, others)), groups)
        for groups, others in apart(list(by), seed)
    ]
    parts = [part for part in found if part]
    return math.fsum(part.value for part in parts) / len(parts) if parts else None


def _steps(scored: Sequence[Judged]) -> Steps | None:
    """Every labelled step of solutions with a reward for each."""
    pairs: list[Pair] = []
    groups: list[str] = []
    for one in scored:
        if one.rewards is not None and len(one.rewards) == len(one.truth.labels):
            known = [(r, label) for r, label in zip(one.rewards, one.truth.labels, strict=True) if label is not None]
            pairs += known
            groups += [one.truth.group] * len(known)
    if not pairs:
        return None
    return Steps(len(pairs), sum(not right for _, right in pairs), area(pairs, groups), calibration(pairs))


def _first_error(judged: Sequence[Judged], threshold: float | None, seed: int) -> FirstError | None:
    by: dict[str, list[tuple[Sequence[float], int]]] = {}
    for one in judged:
        first = one.truth.first_error
        if one.rewards is not None and first is not None and len(one.rewards) == one.steps:
            by.setdefault(one.truth.group, []).append((one.rewards, first))
    if not by:
        return None
    traces = [trace for group in by.values() for trace in group]
    if threshold is not None:
        return first_error([(predict(rewards, threshold), true) for rewards, true in traces], threshold)
    outcomes: list[tuple[int, int]] = []
    for groups, others in apart(list(by), seed):
        chosen = best_threshold([trace for group in others for trace in by[group]])
        outcomes += [(predict(rewards, chosen), true) for group in groups for rewards, true in by[group]]
    return first_error(outcomes, best_threshold(traces))


def _pools(judged: Sequence[Judged]) -> list[tuple[Pool, list[Sequence[float] | None]]]:
    """Per question, the solutions whose outcome is known, and the rewards of each."""
    by: dict[str, list[tuple[bool, Judged]]] = {}
    for one in judged:
        right = outcome(one.truth)
        if right is not None:
            by.setdefault(one.truth.group, []).append((right, one))
    return [
        (
            Pool(tuple(right for right, _ in members), tuple(one.truth.key for _, one in members)),
            [one.rewards for _, one in members],
        )
        for members in by.values()
    ]


def _thin(points: Sequence[tuple[float, float]], most: int = 200) -> Sequence[tuple[float, float]]:
    """At most so many points and the last one, evenly taken."""
    stride = -(-len(points) // most)
    return [*points[:-1:stride], points[-1]]


def _cost(found: Judgement) -> Cost:
    seconds = found.seconds / found.timed if found.timed else None
    return Cost(found.usage, found.paid, found.replayed, seconds, found.wall)
