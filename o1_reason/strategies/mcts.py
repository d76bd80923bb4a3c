"""Monte-Carlo tree search with a process reward model for value.

Inside the tree, PUCT (Silver et al. 2017, arXiv 1712.01815):

    argmax_a  Q(s,a) + c_puct P(s,a) sqrt(N(s)) / (1 + N(s,a))

    P      softmax over siblings of the mean token log-probability of the step
    Q      W / N;  the process reward r(s,a) before the first visit (first-play value)
    N, Q   count each expansion in flight below as a visit worth 0 (virtual loss), so that several can run at once

One simulation descends to a leaf, samples `branch` steps there in one call, and backs up the best of their rewards
(0 if there are none): N += 1, W += max_a r(leaf, a) on the whole path; V = W / N. A finished path is never visited
again, and neither is a subtree with nothing left to expand: transitions are deterministic, so nothing new is there.

At the root, `root_branch` samples, more than inside: what the root does not contain no simulation can find.

    root="gumbel"  sequential halving over the root's actions by  g(a) + log P(a) + sigma(Q(a)),
                   sigma(q) = (c_visit + max_b N(b)) c_scale q   with c_visit = 50, c_scale = 1
                   (Danihelka et al. 2022, eq. 8), g drawn once per action from Gumbel(0). When all below the
                   action whose turn it is is in flight, another that was visited before has it, or none
    root="puct"    PUCT at the root too. It gets worse with budget on reasoning trees: visits pile up on the false
                   positives of the verifier.

The answer is the finished path with the greatest aggregated reward.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ..aggregate import Aggregate, Ranking, check_aggregate
from ..errors import ConfigurationError
from ..mdp import Expansion
from ..tree import ROOT, Node, Tree, best
from ._local import at_least, best_terminal, heat, quiet
from .sequential_halving import considered_visits

C_VISIT, C_SCALE = 50.0, 1.0


@dataclass(frozen=True, slots=True)
class MCTS:
    """`simulations` expansions below the root, each of `branch` samples in one call.

    `root_branch` None is 4 * branch. `considered` root actions enter sequential halving, or a
    quarter of `simulations`, if that is less.
    """

    simulations: int = 64
    branch: int = 4
    c_puct: float = 1.25
    root: Literal["gumbel", "puct"] = "gumbel"
    root_branch: int | None = None
    considered: int = 16
    max_depth: int = 32
    aggregate: Aggregate = "last"
    temperature: float | None = None

    def __post_init__(self) -> None:
        at_least(1, branch=self.branch, max_depth=self.max_depth, considered=self.considered)
        at_least(1, simulations=self.simulations)
        if self.root_branch is not None:
            at_least(1, root_branch=self.root_branch)
        if self.root not in ("gumbel", "puct"):
            raise ConfigurationError(f'root must be "gumbel" or "puct"; got {self.root!r}')
        if not self.c_puct >= 0:
            raise ConfigurationError(f"c_puct must be >= 0; got {self.c_puct!r}")
        check_aggregate(self.aggregate)
        heat(self.temperature)

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        root = tree.nodes[ROOT]
        if not root.drawn:
            return [Expansion(ROOT, self.root_branch or 4 * self.branch, 1, self.temperature)]
        if not root.visits:
            return ()
        room = min(room, self._left(tree))
        chosen: dict[int, None] = {}
        busy: dict[int, int] = {}  # virtual losses of this very select, not yet in the tree
        for _ in range(room):
            leaf = self._descend(tree, chosen, busy)
            if leaf is None:
                break
            chosen[leaf] = None
            for i in tree.path(leaf):
                busy[i] = busy.get(i, 0) + 1
        return [Expansion(i, self.branch, 1, self.temperature) for i in chosen]

    def _left(self, tree: Tree) -> int:
        """Simulations not yet begun; the root's own expansion is none of them."""
        root = tree.nodes[ROOT]
        return self.simulations + 1 - root.visits - root.virtual

    def _descend(self, tree: Tree, chosen: Iterable[int], busy: dict[int, int]) -> int | None:
        """The leaf that the next simulation expands, the `chosen` ones being under way; None: none for now."""
        at, barred = ROOT, set(chosen)
        while True:
            node = tree.nodes[at]
            if not node.drawn:
                return at
            options = [i for i in node.children if i not in barred and self._expandable(tree.nodes[i])]
            if options:
                halving = at == ROOT and self.root == "gumbel"
                action = self._halving(tree, options, busy) if halving else puct(tree, node, options, self.c_puct, busy)
                if action is None:
                    return None
                at = action
            elif node.parent is None:
                return None
            else:  # all that is left below is in flight
                barred.add(at)
                at = node.parent

    def _expandable(self, node: Node) -> bool:
        """Some leaf at or below the node may be expanded, in so far as the node itself can tell."""
        if node.closed or node.waiting or node.dead is not None or node.depth >= self.max_depth:
            return False  # terminal nodes are closed
        return bool(node.visits) or not node.drawn

    def _halving(self, tree: Tree, options: Sequence[int], busy: dict[int, int]) -> int | None:
        """The root action whose turn it is in sequential halving: the best of those with the visits called for.

        If all below it is in flight, another that is in the race already, or None: a free slot is no reason to
        consider more actions than the schedule does.
        """
        root = tree.nodes[ROOT]
        actions = [i for i in root.children if tree.nodes[i].dead is None]
        visits = {i: tree.nodes[i].visits + tree.nodes[i].virtual + busy.get(i, 0) for i in actions}
        turns = considered_visits(self._considered(len(actions)), self.simulations)
        turn = turns[min(len(turns) - 1, root.visits - 1 + root.virtual + busy.get(ROOT, 0))]
        most = max(visits.values())
        logs = log_priors(tree, actions)

        def first(candidates: Sequence[int]) -> int | None:
            nearest = min((abs(visits[i] - turn) for i in candidates), default=0)
            tied = [i for i in candidates if abs(visits[i] - turn) == nearest]
            return best(tied, lambda i: gumbel(tree, i) + logs[i] + sigma(first_play(tree.nodes[i]), most))

        chosen = first([i for i in actions if not tree.nodes[i].closed])
        return chosen if chosen in options else first([i for i in options if visits[i]])

    def _considered(self, actions: int) -> int:
        """How many root actions enter sequential halving; with few simulations fewer, so that some get deep."""
        return max(1, min(self.considered, actions, self.simulations // 4))

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        for i in new:
            leaf = tree.nodes[i]
            if not leaf.drawn and leaf.parent is not None:
                leaf = tree.nodes[leaf.parent]
            children = [tree.nodes[c] for c in leaf.children]
            if leaf.visits or leaf.pending or any(child.waiting for child in children):
                continue  # counted once, when all its samples are scored
            value = max((first_play(child) for child in children if child.dead is None), default=0.0)
            node: Node | None = leaf
            while node is not None:
                node.visits += 1
                node.value += (value - node.value) / node.visits
                node = None if node.parent is None else tree.nodes[node.parent]

    def done(self, tree: Tree) -> bool:
        root = tree.nodes[ROOT]
        if not root.drawn or not quiet(tree):
            return False
        return self._left(tree) <= 0 or self._descend(tree, (), {}) is None

    def answer(self, tree: Tree) -> int | None:
        return best_terminal(tree, self.aggregate)

    def ranking(self, tree: Tree) -> Ranking:
        return Ranking(tree, self.aggregate)


def first_play(node: Node) -> float:
    """Q before and after the first visit: the process reward, then the mean backed-up value."""
    if node.visits:
        return node.value
    return 0.0 if node.reward is None else node.reward


def log_priors(tree: Tree, siblings: Sequence[int]) -> dict[int, float]:
    """log P(s,a): log-softmax of the mean token log-probabilities; uniform where they are not known."""
    logs = [step.logprob or 0.0 if (step := tree.nodes[i].step) else 0.0 for i in siblings]
    top = max(logs)
    norm = top + math.log(math.fsum([math.exp(log - top) for log in logs]))
    return {i: log - norm for i, log in zip(siblings, logs, strict=True)}


def puct(tree: Tree, node: Node, options: Sequence[int], c_puct: float, busy: dict[int, int]) -> int | None:
    """The child among `options` with the greatest PUCT score, the oldest of equals."""
    logs = log_priors(tree, node.children)
    total = math.sqrt(node.visits + node.virtual + busy.get(node.id, 0))

    def score(i: int) -> float:
        child = tree.nodes[i]
        lost = child.virtual + busy.get(i, 0)
        visits = child.visits + lost
        q = child.value * child.visits / visits if visits else first_play(child)
        return q + c_puct * math.exp(logs[i]) * total / (1 + visits)

    return best(options, score)


def sigma(q: float, most_visits: int) -> float:
    """The monotone transformation of eq. 8."""
    return (C_VISIT + most_visits) * C_SCALE * q


def gumbel(tree: Tree, i: int) -> float:
    """g(a): one Gumbel(0) variable per root action, a function of the seed and the step alone."""
    step = tree.nodes[i].step
    return _gumbel(tree.seed, tree.question, step.text if step else "")


@lru_cache(maxsize=4096)  # seeding a generator takes 10 us
def _gumbel(seed: int, question: str, text: str) -> float:
    uniform = random.Random(f"{seed}|{question}|{text}").random()
    return -math.log(-math.log(uniform or 5e-324))
