"""The trial: choosing among n solutions with the verifier, against choosing by a vote."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..aggregate import Aggregate, combine
from ..errors import ConfigurationError
from .selection import Mean, Pool, any_of, apart, best_of, mean, orders_of, paired_test, vote

DRAWS = 200  # random orders of each question's solutions, for the votes
WORK = 2_000_000  # solutions looked at in votes: of large data fewer orders are drawn

Method = tuple[str, Aggregate]  # "none" or "weighted", as in BestOfN(vote=...), and an aggregation
Rewards = list[Sequence[float] | None]


@dataclass(frozen=True, slots=True)
class Row:
    """Shares of questions got right by choosing one of n solutions.

    any        one of them is right: the oracle, pass@n
    vote       by majority vote, or where there are no answers to vote on, one at random (`Trial.voted`)
    best       the best-scored, aggregation chosen on other questions
    weighted   by score-weighted vote, likewise; None without answers
    gain       `best` less `vote`, `p` of there being none
    """

    n: int
    any: Mean
    vote: Mean
    best: Mean
    weighted: Mean | None
    gain: Mean
    p: float


@dataclass(frozen=True, slots=True)
class Trial:
    """All that follows concerns `questions` that have at least the n of the last row solutions with known outcome.

    mixed             questions with right and wrong solutions: only there is anything to choose
    fewer             questions left out for having fewer solutions
    voted             there were answers to vote on
    draws             random orders of each question's solutions in the votes, at least; all else is exact
    method            vote and aggregation that are best on all questions, at the n of the last row; what is
    chosen            reported is measured on questions that had no part in choosing, `baseline` is the vote,
    gain, p           and `gain` the difference
    in_sample         share got right by each method on all questions, to compare them, not to believe
    """

    questions: int
    mixed: int
    fewer: int
    voted: bool
    draws: int
    rows: tuple[Row, ...]
    n: int
    vote: str
    aggregate: Aggregate
    chosen: Mean
    baseline: Mean
    gain: Mean
    p: float
    in_sample: tuple[tuple[str, Aggregate, float], ...]


def run_trial(
    data: Sequence[tuple[Pool, Rewards]], aggregates: Sequence[Aggregate], best_of_n: int | None, seed: int
) -> Trial | None:
    """None if no question has several solutions. Raises ConfigurationError if none has `best_of_n`."""
    counts = sorted(len(pool.right) for pool, _ in data)
    most = counts[-1] if counts else 0
    if best_of_n is not None and best_of_n > most:
        raise ConfigurationError(
            f"best-of-{best_of_n} needs questions with at least {best_of_n} solutions of known outcome; the most that "
            f"a question has is {most}"
        )
    if most < 2:
        return None
    top = best_of_n or 1 << (int(median(count for count in counts if count > 1)).bit_length() - 1)
    sizes = [1 << k for k in range((top - 1).bit_length())] + [top]
    return _Arena([entry for entry in data if len(entry[0].right) >= top], aggregates, sizes, seed).trial(len(data))


class _Arena:
    """What each way of choosing gets right, per question and n."""

    def __init__(
        self, data: Sequence[tuple[Pool, Rewards]], aggregates: Sequence[Aggregate], sizes: list[int], seed: int
    ) -> None:
        self._pools = [pool for pool, _ in data]
        self._sizes, self._seed = sizes, seed
        self._voted = any(key is not None for pool in self._pools for key in pool.keys)
        self._draws = max(10, min(DRAWS, WORK // (len(data) * sizes[-1])))
        self._worth: dict[Method, list[list[float]]] = {}  # method: per question, per n
        self._vote: list[list[float]] = []
        for q, (pool, rewards) in enumerate(data):
            orders = orders_of(pool, sizes[-1], self._draws, f"{seed}/{q}") if self._voted else []
            self._vote.append(vote(pool, None, sizes, orders) if self._voted else [any_of(pool, 1)] * len(sizes))
            for aggregate in aggregates:
                scores = [None if r is None else combine(r, aggregate) for r in rewards]
                self._add(("none", aggregate), [best_of(pool, scores, n) for n in sizes])
                if self._voted:
                    self._add(("weighted", aggregate), vote(pool, scores, sizes, orders))

    def _add(self, method: Method, worths: list[float]) -> None:
        self._worth.setdefault(method, []).append(worths)

    def trial(self, questions: int) -> Trial:
        methods = list(self._worth)
        single = self._apart([method for method in methods if method[0] == "none"])
        weighted = self._apart([method for method in methods if method[0] == "weighted"]) if self._voted else None
        chosen = [worths[-1] for worths in self._apart(methods)]
        baseline = [worths[-1] for worths in self._vote]
        every = range(len(self._pools))
        in_sample = {method: self._total(method, every) / len(every) for method in methods}
        best = max(methods, key=in_sample.__getitem__)
        gains = [a - b for a, b in zip(chosen, baseline, strict=True)]
        return Trial(
            questions=len(every),
            mixed=sum(0 < sum(pool.right) < len(pool.right) for pool in self._pools),
            fewer=questions - len(every),
            voted=self._voted,
            draws=self._draws,
            rows=tuple(self._row(s, single, weighted) for s in range(len(self._sizes))),
            n=self._sizes[-1],
            vote=best[0],
            aggregate=best[1],
            chosen=mean(chosen, self._seed),
            baseline=mean(baseline, self._seed),
            gain=mean(gains, self._seed),
            p=paired_test(gains, self._seed),
            in_sample=tuple((*method, worth) for method, worth in in_sample.items()),
        )

    def _total(self, method: Method, questions: Sequence[int]) -> float:
        return sum(self._worth[method][q][-1] for q in questions)

    def _apart(self, methods: Sequence[Method]) -> list[list[float]]:
        """Per question, what the method gets right that is best, at the greatest n, on questions of other folds."""
        worths: list[list[float]] = [[]] * len(self._pools)
        for fold, others in apart(range(len(self._pools)), self._seed):
            method = max(methods, key=lambda method: self._total(method, others))
            for q in fold:
                worths[q] = self._worth[method][q]
        return worths

    def _row(self, s: int, single: list[list[float]], weighted: list[list[float]] | None) -> Row:
        n, seed = self._sizes[s], self._seed
        best, votes = [worths[s] for worths in single], [worths[s] for worths in self._vote]
        gains = [a - b for a, b in zip(best, votes, strict=True)]
        return Row(
            n=n,
            any=mean([any_of(pool, n) for pool in self._pools], seed),
            vote=mean(votes, seed),
            best=mean(best, seed),
            weighted=None if weighted is None else mean([worths[s] for worths in weighted], seed),
            gain=mean(gains, seed),
            p=paired_test(gains, seed),
        )
