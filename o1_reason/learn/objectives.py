"""What a process reward model is fitted to: three objectives, each defined once, for every trainer.

A model gives one logit x per step, of which V = sigmoid(x) is the value of the state after it (a two-class head's logit
is the difference of its two). NaN stands for "no target": such steps are left out of the loss.

classification   hard labels: cross-entropy on 1 where the label exceeds `threshold`. With `threshold` 0, a step is
                 right if any rollout from it ended right: Math-Shepherd's hard estimation (arXiv 2312.08935, eq. 3)
regression       soft labels: the label is the share of right rollouts (eq. 4), or any other value in [0, 1]
td               V(s) = r(s) + gamma max_a V(s + a) (Jun Wang, "A Tutorial on LLM Reasoning", value iteration for the
                 PRM): regression on what a frozen copy of the model says about the children of s in a search tree

Regression and TD take `loss` "bce", cross-entropy with a soft target, or "mse", the squared error of V (TS-LLM,
ReST-MCTS*). Both are least at V = the target's mean, so both give probabilities; cross-entropy is the default because
its gradient in x is V - target, which does not die where the model is confidently wrong, as that of "mse" does.

Against Monte-Carlo labels, which value a state as the policy plays on from it, TD values it by the best of the steps
that were tried. A maximum over estimates is too high on average; the target network does not change that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import ConfigurationError
from ..tree import Tree

if TYPE_CHECKING:
    from torch import Tensor

Name = Literal["classification", "regression", "td"]
Loss = Literal["bce", "mse"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One of the three, with its settings; raises ConfigurationError for what cannot work.

    threshold   in [0, 1): labels above it are right ("classification")
    loss        "bce" or "mse" ("regression", "td")
    gamma       in (0, 1]: discount per step ("td")
    """

    name: Name = "regression"
    loss: Loss = "bce"
    threshold: float = 0.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise ConfigurationError(f"objective must be one of {', '.join(get_args(Name))}; got {self.name!r}")
        if self.loss not in get_args(Loss):
            raise ConfigurationError(f"loss must be one of {', '.join(get_args(Loss))}; got {self.loss!r}")
        if not (0 <= self.threshold < 1 and 0 < self.gamma <= 1):
            raise ConfigurationError(
                f"need threshold in [0, 1) and gamma in (0, 1]; got {self.threshold} and {self.gamma}"
            )

    def __call__(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """The mean loss over the steps that have a target; 0 where none has. For "td" they come from `td_targets`."""
        if self.name == "classification":
            return classification(logits, targets, self.threshold)
        return regression(logits, targets, self.loss)


def classification(logits: "Tensor", labels: "Tensor", threshold: float = 0.0) -> "Tensor":
    """Cross-entropy on hard labels: 1 where `labels`, in [0, 1] or NaN, exceed `threshold`."""
    import torch

    return regression(logits, torch.where(labels.isnan(), labels, (labels > threshold).to(labels.dtype)))


def regression(logits: "Tensor", targets: "Tensor", loss: Loss = "bce") -> "Tensor":
    """Cross-entropy or squared error of sigmoid(logits) on soft `targets`, in [0, 1] or NaN, of the same shape."""
    from torch.nn import functional

    known = ~targets.isnan()
    x, y = logits[known].float(), targets[known].float()
    if not len(x):
        return logits.sum() * 0.0
    if loss == "mse":
        return functional.mse_loss(x.sigmoid(), y)
    return functional.binary_cross_entropy_with_logits(x, y)


@dataclass(frozen=True, slots=True)
class Backup:
    """A tree as value iteration sees it: one entry per node, parents before children.

    parents   index of each node's parent; -1 for the root of a tree (there may be several trees)
    rewards   r(s): the outcome of a finished state, else the reward of its last step (0 where outcomes are all)
    ends      finished states whose outcome is known; nothing follows them
    """

    parents: tuple[int, ...]
    rewards: tuple[float, ...]
    ends: tuple[bool, ...]

    def paths(self) -> list[list[int]]:
        """The nodes from below the root to each leaf: between them they pass every node but the roots."""
        inner = set(self.parents)
        found: list[list[int]] = []
        for i, parent in enumerate(self.parents):
            if i in inner or parent < 0:
                continue
            path: list[int] = []
            while self.parents[i] >= 0:
                path.append(i)
                i = self.parents[i]
            found.append(path[::-1])
        return found


def backup_of(tree: Tree, outcome: Callable[[int], float | None]) -> Backup:
    """A search tree for value iteration, with the `outcome` in [0, 1] of each terminal node; None: nobody knows.

    Steps earn nothing on the way, so V is the outcome of the best end within reach.
    """
    ends = {i: value for i in tree.terminals if (value := outcome(i)) is not None}
    return Backup(
        tuple(-1 if node.parent is None else node.parent for node in tree.nodes),
        tuple(ends.get(node.id, 0.0) for node in tree.nodes),
        tuple(node.id in ends for node in tree.nodes),
    )


def td_targets(values: "Tensor", parents: "Tensor", rewards: "Tensor", ends: "Tensor", gamma: float = 1.0) -> "Tensor":
    """r(s) + gamma max_a V(s + a) for every node of a `Backup`, with V from the target network's `values` (nodes,).

    A finished state's target is its outcome, and that is also what it is worth to its parent. A leaf that was never
    expanded has no target, NaN; to its parent it is worth what the target network says. No gradient passes.
    """
    import torch

    worth = torch.where(ends, rewards, values.detach().to(rewards.dtype))
    child = parents >= 0
    best = torch.full_like(rewards, -torch.inf).scatter_reduce(0, parents[child], worth[child], "amax")
    backed = torch.where(best.isfinite(), rewards + gamma * best, torch.nan)
    return torch.where(ends, rewards, backed)


def value_iteration(
    backup: Backup, gamma: float = 1.0, leaves: Sequence[float | None] | None = None
) -> list[float | None]:
    """The fixed point that `td_targets` tends to, exactly, by one sweep from the leaves to the root.

    `leaves` are the values of unexpanded leaves; without one a leaf is worth None, unknown, and is left out of its
    parent's maximum, which is then a lower bound.
    """
    best = [-math.inf] * len(backup.parents)  # of the children whose value is known
    values: list[float | None] = [None] * len(backup.parents)
    inner = set(backup.parents)
    for i in range(len(backup.parents) - 1, -1, -1):
        if backup.ends[i]:
            values[i] = backup.rewards[i]
        elif i not in inner:
            values[i] = None if leaves is None else leaves[i]
        elif best[i] > -math.inf:
            values[i] = backup.rewards[i] + gamma * best[i]
        value, parent = values[i], backup.parents[i]
        if value is not None and parent >= 0:
            best[parent] = max(best[parent], value)
    return values
