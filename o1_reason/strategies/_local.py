"""What strategies without tree statistics share."""

import math
from collections.abc import Sequence

from ..aggregate import Aggregate, path_score
from ..errors import ConfigurationError
from ..mdp import Expansion
from ..tree import ROOT, Tree, best


def worth(tree: Tree, i: int, aggregate: Aggregate = "last") -> float:
    """The path's aggregated reward; where no verifier scores, its mean token probability as far as known."""
    score = tree.nodes[i].reward if aggregate == "last" else path_score(tree, i, aggregate)
    if score is not None:
        return score
    known = [step.logprob for step in tree.steps(i) if step.logprob is not None]
    return math.exp(min(0.0, math.fsum(known) / len(known))) if known else 0.0


def backup_local(tree: Tree, new: Sequence[int], aggregate: Aggregate = "last") -> None:
    """V(s) = worth of the path to s, 0 if it is dead; N(s) = 1. The root keeps 0 and 0."""
    for i in new:
        node = tree.nodes[i]
        if node.parent is not None:
            node.visits = 1
            node.value = 0.0 if node.dead is not None else worth(tree, i, aggregate)


def best_terminal(tree: Tree, aggregate: Aggregate = "last") -> int | None:
    """The terminal node whose path is worth most, scored ones before others, the oldest of equals."""
    alive = (i for i in tree.terminals if tree.nodes[i].dead is None)
    return best(alive, lambda i: (tree.nodes[i].reward is not None, worth(tree, i, aggregate)))


def trajectories(tree: Tree, room: int, more: int, max_depth: int, temperature: float | None = None) -> list[Expansion]:
    """Orders that sample whole trajectories: ends that have to go on, oldest first, then `more` from the root.

    A policy may return fewer steps than asked for; the end of what it returned is then expanded, as often as it
    was sampled.
    """
    orders: list[Expansion] = []
    for i in tree.ends:
        if len(orders) == room:
            return orders
        node = tree.nodes[i]
        orders.append(Expansion(i, node.samples - node.drawn, max_depth - node.depth, temperature))
    if more > 0 and len(orders) < room and tree.nodes[ROOT].open:
        orders.append(Expansion(ROOT, more, max_depth, temperature))
    return orders


def quiet(tree: Tree) -> bool:
    """Nothing is in flight: no samples, no scores."""
    return not tree.in_flight and not tree.unscored


def sampled(tree: Tree, n: int) -> bool:
    """`n` trajectories have been sampled to their ends, as far as the policy had any."""
    root = tree.nodes[ROOT]
    return (root.drawn >= n or not root.open) and not tree.ends and quiet(tree)


def at_least(least: int, **numbers: int) -> None:
    """Raises ConfigurationError, naming the number, unless all are integers >= `least`."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ConfigurationError(f"{name} must be an integer >= {least}; got {number!r}")


def heat(temperature: float | None) -> None:
    """Raises ConfigurationError unless the temperature is None or a number >= 0."""
    if temperature is not None and not (isinstance(temperature, int | float) and temperature >= 0):
        raise ConfigurationError(f"temperature must be a number >= 0, or None; got {temperature!r}")


def in_unit(**numbers: float) -> None:
    """Raises ConfigurationError, naming the number, unless all are in [0, 1]."""
    for name, number in numbers.items():
        if not 0 <= number <= 1:
            raise ConfigurationError(f"{name} must be in [0, 1]; got {number!r}")
