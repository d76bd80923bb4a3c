"""Verifiers made of verifiers.

Parts may score each step or the state as a whole, in any mixture: what scores the state as a whole has a say in the
last reward only, and there is one reward per step as soon as one part gives one per step. A part that breaks its
contract, or fails, fails the combination with its own error. The cost of a combination is the sum of its parts'; it
has a `bound` where all of them have one, and an `identity` likewise.
"""

import math
from collections.abc import Callable, Sequence

from ..errors import ConfigurationError
from ..ledger import identity_of
from ..mdp import Score, State, Usage
from ..protocols import Verifier, check_scores
from ..together import together

Bound = Callable[[State, int, int], Usage]


class Gate:
    """A process verifier, with an outcome verifier at the end.

    The rewards are `verifier`'s; the last reward of a finished path is multiplied by `outcome`'s score of it, so an
    answer that an exact check refutes is worth 0 whatever the process verifier thinks.
    """

    def __init__(self, verifier: Verifier, outcome: Verifier) -> None:
        self.verifier = verifier
        self.outcome = outcome

    @property
    def identity(self) -> str:
        return f"gate({_identities((self.verifier, self.outcome))})"

    @property
    def bound(self) -> Bound | None:
        return _bound((self.verifier, self.outcome))

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        finished = [i for i, state in enumerate(states) if state.steps and state.steps[-1].terminal]
        ended = [states[i] for i in finished]
        scores, verdicts = await together([_ask(self.verifier, states), _ask(self.outcome, ended)])
        for i, verdict in zip(finished, verdicts, strict=True):
            *before, last = scores[i].rewards
            rewards = (*before, last * verdict.rewards[-1])
            scores[i] = Score(rewards, verdict.critique or scores[i].critique, scores[i].usage + verdict.usage)
        return scores


class Mean:
    """The weighted arithmetic mean, step by step, of verifiers that are asked all at once.

    r_j = sum_v w_v r_vj / sum_v w_v over the verifiers v that score step j. `weights` are positive, one per verifier;
    None: all equal.
    """

    def __init__(self, *verifiers: Verifier, weights: Sequence[float] | None = None) -> None:
        self.verifiers = _some(verifiers)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(verifiers)
        if len(self.weights) != len(verifiers):
            raise ConfigurationError(f"give one weight per verifier: {len(verifiers)}; got {len(self.weights)}")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ConfigurationError(f"weights must be positive numbers; got {self.weights}")

    @property
    def identity(self) -> str:
        return f"mean({_identities(self.verifiers)}; {', '.join(map(repr, self.weights))})"

    @property
    def bound(self) -> Bound | None:
        return _bound(self.verifiers)

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        return await _combined(self.verifiers, states, self._mean)

    def _mean(self, given: Sequence[tuple[int, float]]) -> float:
        mass = math.fsum(self.weights[part] for part, _ in given)
        return min(1.0, math.fsum(self.weights[part] * reward for part, reward in given) / mass)


class Product:
    """The product, step by step, of verifiers that are asked all at once.

    r_j = prod_v r_vj over the verifiers v that score step j. Each has a veto; right where they judge different things.
    """

    def __init__(self, *verifiers: Verifier) -> None:
        self.verifiers = _some(verifiers)

    @property
    def identity(self) -> str:
        return f"product({_identities(self.verifiers)})"

    @property
    def bound(self) -> Bound | None:
        return _bound(self.verifiers)

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        return await _combined(self.verifiers, states, lambda given: math.prod(reward for _, reward in given))


class Cascade:
    """`cheap` scores all states; only those it gives at least `threshold` are scored by `expensive`.

    With the threshold t in (0, 1), a state whose last cheap reward is c becomes

        t c_j              for each cheap reward c_j,      where c <  t
        t + (1 - t) e_j    for each expensive reward e_j,  where c >= t

    so that whatever survives is worth at least t, whatever does not is worth less, and each side keeps its verifier's
    order. The threshold is a number and not a rank because a score must not depend on what else was in the batch.
    A search that prunes has to prune above t.
    """

    def __init__(self, cheap: Verifier, expensive: Verifier, threshold: float) -> None:
        if not 0 < threshold < 1:
            raise ConfigurationError(f"threshold must be in (0, 1), both ends excluded; got {threshold!r}")
        self.cheap = cheap
        self.expensive = expensive
        self.threshold = threshold

    @property
    def identity(self) -> str:
        return f"cascade({_identities((self.cheap, self.expensive))}; {self.threshold!r})"

    @property
    def bound(self) -> Bound | None:
        return _bound((self.cheap, self.expensive))

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        t = self.threshold
        first = await _ask(self.cheap, states)
        surviving = [i for i, score in enumerate(first) if score.rewards[-1] >= t]
        second = await _ask(self.expensive, [states[i] for i in surviving])
        scores = [Score(tuple(t * c for c in score.rewards), score.critique, score.usage) for score in first]
        for i, score in zip(surviving, second, strict=True):
            rewards = tuple(t + (1 - t) * e for e in score.rewards)
            scores[i] = Score(rewards, score.critique or first[i].critique, first[i].usage + score.usage)
        return scores


async def _ask(verifier: Verifier, states: Sequence[State]) -> list[Score]:
    """The scores, checked; raises VerifierError if they break the contract. No states: no call."""
    return list(check_scores(await verifier.score(states), states)) if states else []


async def _combined(
    verifiers: Sequence[Verifier], states: Sequence[State], combine: Callable[[Sequence[tuple[int, float]]], float]
) -> list[Score]:
    """For each state, `combine` of what the verifiers say of each step, as (verifier's index, reward)."""
    parts = await together([_ask(verifier, states) for verifier in verifiers])
    scores: list[Score] = []
    for given in zip(*parts, strict=True):
        length = max(len(score.rewards) for score in given)
        steps = [
            [(part, score.rewards[-k]) for part, score in enumerate(given) if len(score.rewards) >= k]
            for k in range(length, 0, -1)  # counted from the end: a reward for the whole state is its last one
        ]
        critique = "\n".join(score.critique for score in given if score.critique) or None
        usage = sum((score.usage for score in given), Usage())
        scores.append(Score(tuple(combine(step) for step in steps), critique, usage))
    return scores


def _some(verifiers: tuple[Verifier, ...]) -> tuple[Verifier, ...]:
    if not verifiers:
        raise ConfigurationError("a combination needs at least one verifier")
    return verifiers


def _identities(parts: Sequence[Verifier]) -> str:
    return ", ".join(identity_of(part, "verifier") for part in parts)


def _bound(parts: Sequence[Verifier]) -> Bound | None:
    """The sum of the parts' bounds; None where one has none, as nobody can then promise anything."""
    bounds: list[Bound] = [known for part in parts if (known := getattr(part, "bound", None)) is not None]
    if len(bounds) < len(parts):
        return None
    return lambda state, n, max_steps: sum((bound(state, n, max_steps) for bound in bounds), Usage())
