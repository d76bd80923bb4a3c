"""How good a policy and a reward model are: accuracy against tokens, and the reward model against an exact truth.

Every figure comes from searches, so a ledger makes all of it free to repeat.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from ..audit.metrics import Area, Bin, Calibration, area, area_within, calibration
from ..audit.selection import Mean
from ..budget import Budget
from ..driver import search
from ..errors import ConfigurationError
from ..ledger import Ledger
from ..protocols import Policy, Strategy, Verifier
from ..strategies import BestOfN, ChainOfThought
from .gate import Answered
from .tasks import run_tasks, shared_ledger

T = TypeVar("T")
Progress = Callable[[int, int], None]  # searches done, of all
Task = tuple[str, int]  # question, seed


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Side:
    """What is measured, by what it is judged, and how often.

    policy, verifier   what is measured; a verifier of None: the policy alone
    checker            exact outcome check of finished states
    tries              searches of each problem, with different seeds
    seed               of the first try
    ledger             finished calls are not paid again
    at_once            searches at the same time
    ray                as in `run_tasks`; None: on this machine
    """

    policy: Policy
    verifier: Verifier | None
    checker: Verifier
    tries: int = 1
    seed: int = 0
    ledger: str | Ledger | None = None
    at_once: int = 8
    ray: str | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy at one budget: the mean over problems with its 95 % interval, and the tokens used per problem and try.

    budget   tokens allowed per problem and try; None: no limit
    """

    budget: int | None
    accuracy: Mean
    tokens: float
    problems: int
    tries: int

    def to_data(self) -> dict[str, Any]:
        """Plain JSON types; `Point.from_data` is the inverse."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Point":
        return cls(**{**data, "accuracy": Mean(**data["accuracy"])})


@dataclass(frozen=True, slots=True)
class _Answer:
    """A task: whether the chosen answer is right, and the tokens it took. No answer is a wrong one."""

    side: Side
    strategy: Strategy
    budget: Budget
    ledger: Ledger | None

    async def __call__(self, task: Task) -> tuple[bool, int]:
        question, seed = task
        side = self.side
        result = await search(
            question, side.policy, side.verifier, self.strategy, self.budget, seed=seed, ledger=self.ledger
        )
        if result.node is None or not result.tree.nodes[result.node].terminal:
            return False, result.usage.tokens
        (score,) = await side.checker.score([result.tree.state(result.node)])
        return score.rewards[-1] > 0.5, result.usage.tokens


async def answers(
    questions: Sequence[str], side: Side, strategy: Strategy, budget: Budget, progress: Progress = _silent
) -> dict[str, Answered]:
    """How often the chosen answer to each question is right, and the tokens that took. Raises what a search raises."""
    found: dict[str, list[tuple[bool, int]]] = {question: [] for question in questions}
    if len(found) < len(questions):
        raise ConfigurationError("some problems come twice; give each once")
    async with shared_ledger(side.ledger, side.ray) as book:
        local = replace(side, ledger=None)
        async for (question, _), outcome in _outcomes(
            _Answer(local, strategy, budget, book), questions, side, progress
        ):
            found[question].append(outcome)
    return {
        question: Answered(sum(right for right, _ in each), len(each), sum(tokens for _, tokens in each))
        for question, each in found.items()
    }


async def _outcomes(
    function: Callable[[Task], Awaitable[T]], questions: Sequence[str], side: Side, progress: Progress
) -> AsyncIterator[tuple[Task, T]]:
    """Every try of every question with what `function` makes of it, as they finish. The first failure is raised."""
    tasks = [(question, side.seed + k) for k in range(side.tries) for question in questions]
    done = 0
    async with aclosing(run_tasks(function, tasks, concurrency=side.at_once, ray=side.ray)) as outcomes:
        async for task, outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            done += 1
            progress(done, len(tasks))
            yield task, outcome


def point(answered: Mapping[str, Answered], budget: int | None) -> Point:
    """Accuracy and tokens of what was answered, equally many tries of each problem."""
    tries = max(one.tries for one in answered.values())
    total = sum(one.tries for one in answered.values())
    accuracy = share([one.right / one.tries for one in answered.values()])
    return Point(budget, accuracy, sum(one.tokens for one in answered.values()) / total, len(answered), tries)


def share(values: Sequence[float]) -> Mean:
    """The mean of shares in [0, 1], one per problem, and its 95 % confidence interval.

    Agresti and Coull, "Approximate is better than exact" (The American Statistician 52, 1998): two right and two wrong
    problems are added, so that no interval is a point, not even where all is right.
    """
    n = len(values) + 4
    middle = (math.fsum(values) + 2) / n
    error = 1.96 * math.sqrt(((math.fsum(x * x for x in values) + 2) / n - middle * middle) / n)
    return Mean(math.fsum(values) / len(values), max(0.0, middle - error), min(1.0, middle + error))


async def greedy(questions: Sequence[str], side: Side, progress: Progress = _silent) -> Point:
    """The policy alone at temperature 0."""
    alone = replace(side, verifier=None, tries=1)
    return point(await answers(questions, alone, ChainOfThought(), Budget(), progress), None)


async def curve(
    questions: Sequence[str], side: Side, strategy: Strategy, budgets: Sequence[int], progress: Progress = _silent
) -> list[Point]:
    """Accuracy at each of several token budgets, all other things equal."""
    points: list[Point] = []
    for k, tokens in enumerate(budgets):

        def shift(done: int, total: int, k: int = k) -> None:
            progress(done + k * total, total * len(budgets))

        points.append(point(await answers(questions, side, strategy, Budget(max_tokens=tokens), shift), tokens))
    return points


@dataclass(frozen=True, slots=True)
class Judged:
    """A reward model against the truth, over `states` states of `problems` problems.

    auc       chance that a right state scores above a wrong one; `within`: among states of the same problem
    exact     the truth is known of unfinished states, too; else finished ones alone were judged
    right     share of states that are right
    """

    states: int
    problems: int
    exact: bool
    right: float
    auc: Area | None
    within: float | None
    calibration: Calibration

    def to_data(self) -> dict[str, Any]:
        """Plain JSON types; `Judged.from_data` is the inverse."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Judged":
        fit = data["calibration"]
        bins = tuple(Bin(**one) for one in fit["bins"])
        auc = data["auc"] and Area(**data["auc"])
        return cls(**{**data, "auc": auc, "calibration": Calibration(**{**fit, "bins": bins})})


@dataclass(frozen=True, slots=True)
class _Rewards:
    """A task: the rewards of the states of `samples` solutions, and whether each state is right."""

    side: Side
    solver: Verifier | None
    samples: int
    ledger: Ledger | None

    async def __call__(self, task: Task) -> list[tuple[float, bool]]:
        question, seed = task
        side, strategy = self.side, BestOfN(n=self.samples)
        result = await search(question, side.policy, side.verifier, strategy, seed=seed, ledger=self.ledger)
        tree = result.tree
        scored = [
            (node.reward, tree.state(node.id))
            for node in tree.nodes[1:]
            if node.reward is not None and (self.solver is not None or node.terminal)
        ]
        truths = await (self.solver or side.checker).score([state for _, state in scored]) if scored else []
        return [(reward, truth.rewards[-1] > 0.5) for (reward, _), truth in zip(scored, truths, strict=True)]


async def judge(
    questions: Sequence[str], side: Side, solver: Verifier | None = None, samples: int = 8, progress: Progress = _silent
) -> Judged:
    """The reward model's scores of the states of `samples` solutions to each question, against the truth.

    The solutions are sampled from the policy; equal states of one search count once.

    solver    exact judge of unfinished states, too; None: finished states are judged by the checker, others are not
    """
    if side.verifier is None:
        raise ConfigurationError("there is no reward model to judge")
    async with shared_ledger(side.ledger, side.ray) as book:
        function = _Rewards(replace(side, ledger=None), solver, samples, book)
        found = {task: pairs async for task, pairs in _outcomes(function, questions, side, progress)}
    tasks = sorted(found)  # an order that does not depend on the searches'
    pairs = [pair for task in tasks for pair in found[task]]
    groups = [task[0] for task in tasks for _ in found[task]]
    fit = calibration(pairs)
    if fit is None:
        raise ConfigurationError("the policy finished no solution that could be judged; train it further first")
    share = math.fsum(right for _, right in pairs) / len(pairs)
    return Judged(
        len(pairs), len(set(groups)), solver is not None, share, area(pairs, groups), area_within(pairs, groups), fit
    )
