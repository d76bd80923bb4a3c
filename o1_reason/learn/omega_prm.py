"""OmegaPRM (Luo et al. 2024, arXiv 2406.06592): a tree of Monte-Carlo estimates, grown by searches for first errors.

A state s is a question and steps; MC(s) is the share of k rollouts from it that end right. Of states with
0 < MC(s) < 1 the finished wrong rollouts r are candidates; each search takes the one with the greatest

    Q(s,r) + U(s),   Q(s,r) = alpha^(1 - MC(s)) beta^(len(r)/L),   U(s) = c_puct sqrt(sum_i N(s_i)) / (1 + N(s))

out of the pool, for good, and adds 1 to N(s). Of its M steps the first wrong one is looked for by bisection: k
rollouts from the step in the middle; MC = 0, it is there or before; MC > 0, it is after. That takes k ceil(log2 M)
rollouts, where labelling every step takes k (M - 1). Every prefix tried on the way is a state of the tree, with its
label MC, and its own wrong rollouts join the pool. A prefix that was tried before is not tried again. Right rollouts
are states, too, as in OpenR's implementation: their last step is 1 by its own answer, for nothing. Without them nearly
all labels of short solutions are 0, for what is tried is what went wrong.

alpha = 0.5, beta = 0.9, L = 500 tokens and c_puct = 0.125 are the paper's (section 4); so are k = 8 and 100 searches.
A problem whose k first rollouts are all right or all wrong has no candidates and gives no row, which is the paper's
filter against questions that are too easy or too hard.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..errors import ConfigurationError
from ..mdp import State
from .monte_carlo import at_least_one
from .problems import Problem
from .rollouts import Roller, Rollout, texts
from .rows import Label, Path, Row, from_prefixes, prompt_of


@dataclass(frozen=True, slots=True)
class OmegaPRM:
    """`rollouts` is k; `searches` limits the searches of one problem, `max_rollouts` its rollouts: no search is begun
    that could pass it. len(r) is in tokens, where the policy counts them, else in words."""

    rollouts: int = 8
    searches: int = 100
    max_rollouts: int | None = None
    alpha: float = 0.5
    beta: float = 0.9
    length: float = 500.0
    c_puct: float = 0.125
    source: ClassVar[str] = "omega_prm"

    def __post_init__(self) -> None:
        at_least_one(rollouts=self.rollouts, searches=self.searches, max_rollouts=self.max_rollouts or 1)
        if not (0 < self.alpha <= 1 and 0 < self.beta <= 1 and self.length > 0 and self.c_puct >= 0):
            raise ConfigurationError(
                f"need alpha and beta in (0, 1], length > 0 and c_puct >= 0; got {self.alpha}, {self.beta}, "
                f"{self.length} and {self.c_puct}"
            )

    async def label(self, problem: Problem, given: Sequence[State] | None, roller: Roller, key: str) -> list[Row]:
        if given is not None:
            raise ConfigurationError("OmegaPRM searches what its own policy samples: give problems without solutions")
        search = OmegaSearch(self, problem, roller)
        await search.run()
        return list(from_prefixes(prompt_of(problem), search.labels, self.source, key))


@dataclass(slots=True, eq=False)
class Estimate:
    """A state of the tree: MC(s), and N(s), how often a rollout of it was selected."""

    state: State
    value: float
    visits: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A wrong rollout of a state, and its Q, which does not change."""

    estimate: Estimate
    rollout: Rollout
    q: float


@dataclass(slots=True)
class OmegaSearch:
    """The tree of one problem. `selected` tells which rollouts were searched, in order."""

    method: OmegaPRM
    problem: Problem
    roller: Roller
    estimates: dict[Path, Estimate] = field(default_factory=dict)
    labels: dict[Path, Label] = field(default_factory=dict)  # of all prefixes that something is known about
    pool: list[Candidate] = field(default_factory=list)
    selected: list[Candidate] = field(default_factory=list)
    drawn: int = 0

    async def run(self) -> None:
        await self.estimate(self.problem.state)
        while self.pool and len(self.selected) < self.method.searches:
            candidate = self._select()
            if candidate is None:
                return
            await self._bisect(candidate)

    def _select(self) -> Candidate | None:
        """The best candidate, taken out of the pool; the oldest of equals. None: it could pass `max_rollouts`."""
        total = math.sqrt(len(self.selected))  # sum_i N(s_i): one for each selection
        c_puct = self.method.c_puct
        best = max(self.pool, key=lambda one: one.q + c_puct * total / (1 + one.estimate.visits))
        most = self.method.max_rollouts
        needed = self.method.rollouts * math.ceil(math.log2(len(best.rollout.steps)))
        if most is not None and self.drawn + needed > most:
            return None
        self.pool.remove(best)
        best.estimate.visits += 1
        self.selected.append(best)
        return best

    async def _bisect(self, candidate: Candidate) -> None:
        """Find the first step of a wrong rollout from which nothing ends right."""
        start, steps = candidate.estimate.state, candidate.rollout.steps
        right, wrong = 0, len(steps)  # steps after which MC is above 0, and 0
        whole = replace(start, steps=(*start.steps, *steps))
        while wrong - right > 1:
            middle = (right + wrong) // 2
            state = replace(start, steps=(*start.steps, *steps[:middle]))
            if (await self.estimate(state)).value > 0:
                right = middle
            else:
                wrong = middle
        if wrong == len(steps):  # the last step, which its own answer condemns
            self.labels.setdefault(texts(whole), (0.0, 1))

    async def estimate(self, state: State) -> Estimate:
        """MC of a state, by k rollouts the first time it is asked for; its wrong rollouts join the pool."""
        path = texts(state)
        known = self.estimates.get(path)
        if known is not None:
            return known
        k = self.method.rollouts
        rollouts = await self.roller.roll(self.problem, state, k)
        self.drawn += k
        new = self.estimates[path] = Estimate(state, rollouts.share)
        self.labels[path] = rollouts.share, k
        if path or new.value < 1:  # a question that is always solved is too easy
            for rollout in rollouts.found:
                if rollout.right:
                    self.labels.setdefault((*path, *_texts(rollout)), (1.0, 1))
        if 0 < new.value < 1:
            wrong = {_texts(rollout): rollout for rollout in rollouts.found if rollout.finished and not rollout.right}
            self.pool += [Candidate(new, rollout, self._q(new, rollout)) for rollout in wrong.values()]
        return new

    def _q(self, estimate: Estimate, rollout: Rollout) -> float:
        method = self.method
        tokens = sum(step.tokens for step in rollout.steps)
        length = tokens or sum(len(step.text.split()) for step in rollout.steps)
        return method.alpha ** (1 - estimate.value) * method.beta ** (length / method.length)


def _texts(rollout: Rollout) -> Path:
    return tuple(step.text for step in rollout.steps)
