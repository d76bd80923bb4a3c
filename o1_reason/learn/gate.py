"""The gate: a candidate replaces the incumbent only if it is better on held-out problems at equal tokens.

Both answer the same problems with the same seeds within the same token budget, and a paired test decides, one-sided, at
a stated level. Held-out problems are used by one gate and never again, so that no round can learn from the answers of
an earlier one, and each decision errs with the stated probability. The test split is not for gates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Answered:
    """What one side made of one problem: how many of `tries` were right, and the tokens that all of them took."""

    right: int
    tries: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The candidate against the incumbent.

    test        "McNemar" where each problem was tried once, "sign flips" where several times; both exact
    p           P(a difference at least as much in the candidate's favour), if there were none
    alpha       accepted if p <= alpha
    difference  of accuracies, candidate less incumbent, and its 95 % confidence interval from `low` to `high`
    better      problems that the candidate got right more often; `worse`: less often
    tokens      per problem and try, used by candidate and incumbent
    budget      tokens that each of them was allowed per problem and try; None: no limit
    """

    accepted: bool
    test: str
    p: float
    alpha: float
    difference: float
    low: float
    high: float
    candidate: float
    incumbent: float
    problems: int
    tries: int
    better: int
    worse: int
    tokens: tuple[float, float]
    budget: int | None

    def to_data(self) -> dict[str, Any]:
        """Plain JSON types; `Comparison.from_data` is the inverse."""
        return {**asdict(self), "tokens": list(self.tokens)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Comparison":
        return cls(**{**data, "tokens": tuple(data["tokens"])})


def compare(
    candidate: Mapping[str, Answered], incumbent: Mapping[str, Answered], *, alpha: float = 0.05, budget: int | None
) -> Comparison:
    """Raises ConfigurationError unless both tried the same problems equally often, and often enough for `alpha`."""
    if not 0 < alpha < 0.5:
        raise ConfigurationError(f"alpha must be a number between 0 and 0.5; got {alpha}")
    if candidate.keys() != incumbent.keys():
        raise ConfigurationError("the gate compares on the same problems; the two sides were given different ones")
    tries = {one.tries for side in (candidate, incumbent) for one in side.values()}
    if len(tries) > 1:
        raise ConfigurationError(f"the gate compares equally many tries of each problem; got {sorted(tries)}")
    check_size(len(candidate), alpha)
    n, k = len(candidate), tries.pop()
    gains = [candidate[name].right - incumbent[name].right for name in candidate]
    p = one_sided(gains)
    low, high = interval([gain / k for gain in gains])
    return Comparison(
        accepted=p <= alpha,
        test="McNemar" if k == 1 else "sign flips",
        p=p,
        alpha=alpha,
        difference=sum(gains) / (n * k),
        low=low,
        high=high,
        candidate=sum(one.right for one in candidate.values()) / (n * k),
        incumbent=sum(one.right for one in incumbent.values()) / (n * k),
        problems=n,
        tries=k,
        better=sum(gain > 0 for gain in gains),
        worse=sum(gain < 0 for gain in gains),
        tokens=(_tokens(candidate) / (n * k), _tokens(incumbent) / (n * k)),
        budget=budget,
    )


def check_size(problems: int, alpha: float) -> None:
    """Raises ConfigurationError where not even a candidate that wins on every problem could be accepted."""
    least = math.ceil(-math.log2(alpha))
    if problems < least:
        raise ConfigurationError(
            f"with {problems} problems no candidate could pass a gate of alpha = {alpha}: it takes at least {least}, "
            "and some hundred to see a gain of a few per cent"
        )


def one_sided(gains: Sequence[int]) -> float:
    """P(sum of +-gains >= their sum), all signs equally likely: Fisher's randomisation test of paired differences.

    Exact for any number of them: the number of ways to reach each sum is a coefficient of prod_i (1 + x^|g_i|), and the
    polynomial is one big integer, a slot of bits for each coefficient. With gains of -1, 0 and 1 this is McNemar's
    exact test, P(Binomial(b + c, 1/2) >= b).
    """
    sizes = [abs(gain) for gain in gains if gain]
    wins = sum(gain for gain in gains if gain > 0)  # of 2^n sets of sizes, those that add up to at least this
    slot = len(sizes) + 1
    ways = 1
    for size in sizes:
        ways += ways << (size * slot)
    ways >>= wins * slot
    total, mask = 0, (1 << slot) - 1
    for _ in range(sum(sizes) - wins + 1):
        total += ways & mask
        ways >>= slot
    return total / (1 << len(sizes))


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the mean of paired differences in [-1, 1].

    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions" (Statistics in Medicine
    24, 2005): two problems are added, spread evenly over the four outcomes of a pair (half a win, half a loss, one
    tie), which keeps it honest where nearly all differences are none.
    """
    n = len(differences) + 2
    mean = math.fsum(differences) / n
    variance = (math.fsum(d * d for d in differences) + 1) / n - mean * mean
    error = 1.96 * math.sqrt(variance / n)
    return max(-1.0, mean - error), min(1.0, mean + error)


def _tokens(side: Mapping[str, Answered]) -> int:
    return sum(one.tokens for one in side.values())
