"""From step rewards to one score per path, and from scored paths to a ranking of answers.

Aggregation: *last* and *min* as in "Let's Verify Step by Step" (arXiv 2305.20050) and OpenR, *prod* as there,
*mean*. Votes: *majority* is self-consistency (arXiv 2203.11171), *weighted* sums the scores of equal answers, and
*step_aware* the products of the scores of their steps (DIVERSE: Li et al. 2022, arXiv 2206.02336, sections 3.2, 3.3).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import and_
from typing import Literal, get_args

from .errors import ConfigurationError
from .tree import Tree

Aggregate = Literal["last", "min", "prod", "mean"]
Vote = Literal["none", "majority", "weighted", "step_aware"]

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


def combine(rewards: Sequence[float], aggregate: Aggregate = "last") -> float:
    """One score in [0, 1] from the rewards along a path, of which there is at least one."""
    return _AGGREGATES[aggregate](rewards)


def path_score(tree: Tree, i: int, aggregate: Aggregate = "last") -> float | None:
    """The score of the path to node `i` in [0, 1]; None where nothing on it is scored, or node `i` is not."""
    last = tree.nodes[i].reward
    if last is None or aggregate == "last":
        return last
    return combine(tree.rewards(i), aggregate)


def answer_of(tree: Tree, i: int) -> str | None:
    """The answer that terminal node `i` carries, as the policy wrote it; None where it waits for a tool to run."""
    step = tree.nodes[i].step
    return None if step is None or step.answer is None or step.pending else step.answer.strip()


def step_aware_scores(tree: Tree, scores: Mapping[int, float]) -> dict[int, float]:
    """What each finished path is worth by its steps, in [0, 1], given the `scores` f_k of whole paths.

    prod_j s_ij  with  s_ij = the mean of f_k over the samples of those paths k in which the first j steps of path i
    all occur, in any order. In DIVERSE's training labels (section 3.3) step j of a wrong path is right if what was
    found up to it also occurs in a right path; s_ij is that label's expectation while f_k stands for whether path k is
    right. So a path gains from a sound beginning that others share, and loses by one that leads nowhere. Steps are
    equal if their texts are, letter case and blanks apart, or, for the last ones, if their answers are.
    """
    ids = list(scores)
    steps = {i: _numbered(tree, i) for i in ids}
    holders: dict[tuple[str, int], int] = {}  # step -> the paths it occurs in, as bits
    for bit, i in enumerate(ids):
        for step in steps[i]:
            holders[step] = holders.get(step, 0) | 1 << bit
    means: dict[int, float] = {}

    def mean(sharing: int) -> float:
        if sharing not in means:
            members = [i for bit, i in enumerate(ids) if sharing >> bit & 1]
            mass = sum(tree.nodes[i].samples for i in members)
            means[sharing] = math.fsum(tree.nodes[i].samples * scores[i] for i in members) / mass
        return means[sharing]

    sharing = {i: accumulate((holders[step] for step in steps[i]), and_) for i in ids}
    return {i: math.prod(map(mean, sharing[i])) for i in ids}


def _numbered(tree: Tree, i: int) -> list[tuple[str, int]]:
    """The steps of a finished path, each with how often it came before, so that repetitions differ."""
    counts: Counter[str] = Counter()
    numbered: list[tuple[str, int]] = []
    for j in tree.path(i)[1:]:
        node = tree.nodes[j]
        text = " ".join(node.step.text.split()).casefold() if node.step and node.key is None else f"={node.key}"
        numbered.append((text, counts[text]))
        counts[text] += 1
    return numbered


class Ranking:
    """Distinct answers, best first, with the node that stands for each, and what they are worth, in [0, 1].

    vote "none"        an answer is worth its best path; unscored answers rank behind, by votes
    vote "majority"    the share of the votes
    vote "weighted"    the share of the summed scores (of the votes, where nothing is scored)
    vote "step_aware"  the share of the summed `step_aware_scores` (likewise)
    """

    def __init__(self, tree: Tree, aggregate: Aggregate = "last", vote: Vote = "none") -> None:
        paths = [i for i in tree.terminals if tree.nodes[i].dead is None and tree.nodes[i].key is not None]
        scores = {i: score for i in paths if (score := path_score(tree, i, aggregate)) is not None}
        ballots = step_aware_scores(tree, scores) if vote == "step_aware" else scores
        best: dict[str, tuple[float, int]] = {}  # answer -> score and id of its best path
        votes: dict[str, float] = {}
        weights: dict[str, float] = {}
        for i in paths:
            key, samples = tree.nodes[i].key or "", tree.nodes[i].samples
            score = scores.get(i, -1.0)
            votes[key] = votes.get(key, 0) + samples
            weights[key] = weights.get(key, 0.0) + samples * ballots.get(i, 0.0)
            if key not in best or score > best[key][0]:
                best[key] = score, i
        total = sum(votes.values())
        mass = math.fsum(weights.values())
        if vote == "none" and scores:
            worth = {key: max(score, 0.0) for key, (score, _) in best.items()}
        elif vote in ("weighted", "step_aware") and mass > 0:
            worth = {key: weight / mass for key, weight in weights.items()}
        else:
            worth = {key: count / total for key, count in votes.items()}
        order = sorted(best, key=lambda key: (-worth[key], -votes[key], best[key][1]))
        self.answers = tuple((answer_of(tree, best[key][1]) or "", worth[key]) for key in order)
        self.nodes = tuple(best[key][1] for key in order)  # of `answers`
        self.node = self.nodes[0] if order else None
        self._worth = worth if scores or vote != "none" else {}

    def confidence_of(self, tree: Tree, i: int) -> float | None:
        """What the answer of node `i` is worth, in [0, 1]; None where neither a verifier nor a vote can tell."""
        return self._worth.get(tree.nodes[i].key or "")
