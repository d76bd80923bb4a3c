"""From step rewards to one score per path, and from scored paths to a ranking of answers.

Aggregation: *last* and *min* as in "Let's Verify Step by Step" (arXiv 2305.20050) and OpenR, *prod* as there,
*mean*. Votes: *majority* is self-consistency (arXiv 2203.11171), *weighted* sums the scores of equal answers
(arXiv 2206.02336).
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from .errors import ConfigurationError
from .tree import Tree

Aggregate = Literal["last", "min", "prod", "mean"]
Vote = Literal["none", "majority", "weighted"]

_AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda rewards: rewards[-1],
    "min": min,
    "prod": math.prod,
    "mean": lambda rewards: math.fsum(rewards) / len(rewards),
}


def check_aggregate(name: str) -> None:
    """Raises ConfigurationError for a name that is not an `Aggregate`."""
    if name not in _AGGREGATES:
        raise ConfigurationError(f"aggregate must be one of {', '.join(_AGGREGATES)}; got {name!r}")


def check_vote(name: str) -> None:
    """Raises ConfigurationError for a name that is not a `Vote`."""
    if name not in get_args(Vote):
        raise ConfigurationError(f"vote must be one of {', '.join(get_args(Vote))}; got {name!r}")


def path_score(tree: Tree, i: int, aggregate: Aggregate = "last") -> float | None:
    """The score of the path to node `i` in [0, 1]; None where nothing on it is scored, or node `i` is not."""
    last = tree.nodes[i].reward
    if last is None or aggregate == "last":
        return last
    return _AGGREGATES[aggregate](tree.rewards(i))


def answer_of(tree: Tree, i: int) -> str | None:
    """The answer that terminal node `i` carries, as the policy wrote it."""
    step = tree.nodes[i].step
    return None if step is None or step.answer is None else step.answer.strip()


class Ranking:
    """Distinct answers, best first, with the node that stands for each, in [0, 1].

    vote "none"      an answer is worth its best path; unscored answers rank behind, by votes
    vote "majority"  the share of the votes
    vote "weighted"  the share of the summed scores (of the votes, where nothing is scored)
    """

    def __init__(self, tree: Tree, aggregate: Aggregate = "last", vote: Vote = "none") -> None:
        best: dict[str, tuple[float, int]] = {}  # answer -> score and id of its best path
        votes: dict[str, float] = {}
        weights: dict[str, float] = {}
        scored = False
        for i in tree.terminals:
            node = tree.nodes[i]
            if node.dead is not None or node.key is None:
                continue
            found = path_score(tree, i, aggregate)
            scored = scored or found is not None
            score = -1.0 if found is None else found
            votes[node.key] = votes.get(node.key, 0) + node.samples
            weights[node.key] = weights.get(node.key, 0.0) + node.samples * max(score, 0.0)
            if node.key not in best or score > best[node.key][0]:
                best[node.key] = score, i
        total = sum(votes.values())
        mass = math.fsum(weights.values())
        if vote == "none" and scored:
            worth = {key: max(score, 0.0) for key, (score, _) in best.items()}
        elif vote == "weighted" and mass > 0:
            worth = {key: weight / mass for key, weight in weights.items()}
        else:
            worth = {key: count / total for key, count in votes.items()}
        order = sorted(best, key=lambda key: (-worth[key], -votes[key], best[key][1]))
        self.answers = tuple((answer_of(tree, best[key][1]) or "", worth[key]) for key in order)
        self.node = best[order[0]][1] if order else None
        self._worth = worth if scored or vote != "none" else {}

    def confidence_of(self, tree: Tree, i: int) -> float | None:
        """What the answer of node `i` is worth, in [0, 1]; None where neither a verifier nor a vote can tell."""
        return self._worth.get(tree.nodes[i].key or "")
