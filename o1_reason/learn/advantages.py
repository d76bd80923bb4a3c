"""Advantages of group relative policy optimisation (GRPO), by outcome and by step, and the loss they enter.

A group is G solutions of one question, sampled from the policy. Solution i has the steps 1 .. K_i.

outcome   A_i = (R_i - mean R) / std R, the same for every token (DeepSeekMath, arXiv 2402.03300, section 4.1.2)
step      rewards of all steps of all solutions in the group are normalised together, r~ = (r - mean r) / std r, and
          a token of step t is worth the sum from that step on: A_i,t = sum_{j >= t} r~_i,j (section 4.1.3; Jun Wang, "A
          Tutorial on LLM Reasoning", where the rewards are those of the process reward model)

`advantages` adds both up with explicit weights, each part normalised by itself: process 1 and outcome 0 is the second
formula to the letter, process 0 and outcome 1 the first. std is the sample's (n - 1), with 1e-4 added as in TRL; a
group in which nothing differs teaches nothing: its advantages are 0.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class Weights:
    """What a step's advantage is made of: both at least 0, one of them above."""

    process: float = 1.0
    outcome: float = 1.0

    def __post_init__(self) -> None:
        if not (self.process >= 0 and self.outcome >= 0 and self.process + self.outcome > 0):
            raise ConfigurationError(f"weights must be at least 0, one of them above 0; got {self}")


def normalised(rewards: Sequence[float]) -> list[float]:
    """(r - mean) / (std + 1e-4); zeros where all are equal or there is only one."""
    if len(rewards) < 2 or max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    mean, deviation = statistics.fmean(rewards), statistics.stdev(rewards)
    return [(reward - mean) / (deviation + EPSILON) for reward in rewards]


def step_advantages(rewards: Sequence[Sequence[float]]) -> list[list[float]]:
    """For each solution of a group, the advantage of each step, from the rewards of its steps."""
    flat = normalised([reward for steps in rewards for reward in steps])
    found: list[list[float]] = []
    for steps in rewards:
        mine, flat = flat[: len(steps)], flat[len(steps) :]
        found.append(list(accumulate(reversed(mine)))[::-1])
    return found


def advantages(
    process: Sequence[Sequence[float]], outcomes: Sequence[float], weights: Weights = Weights()
) -> list[list[float]]:
    """For each solution of a group, the advantage of each step.

    process    rewards of the process reward model, one per step; where it weighs nothing, only their number counts
    outcomes   1 where the solution is right, else 0; NaN where nobody knows, which is left out of the group's mean
    """
    known = [reward for reward in outcomes if not math.isnan(reward)]
    whole = dict(zip(known, normalised(known), strict=True))  # equal outcomes have equal advantages
    by_step = step_advantages(process)
    return [
        [weights.process * step + weights.outcome * whole.get(outcome, 0.0) for step in steps]
        for steps, outcome in zip(by_step, outcomes, strict=True)
    ]


def spread(steps: Sequence[float], ends: Sequence[int], length: int) -> list[float]:
    """The advantage of each of `length` tokens; `ends` are the numbers of tokens up to the end of each step.

    What comes after the last step, such as the end-of-text token, belongs to it; without a step there is none: zeros.
    """
    if len(steps) != len(ends):
        raise ConfigurationError(f"{len(steps)} advantages for {len(ends)} steps: give one for each")
    row: list[float] = []
    for step, end in zip(steps, ends, strict=True):
        row += [step] * (min(end, length) - len(row))
    return row + [steps[-1] if steps else 0.0] * (length - len(row))


def k3(logps: "Tensor", reference: "Tensor") -> "Tensor":
    """Per token, an unbiased estimate of KL(policy || reference) that is never negative: q - log q - 1, q = ref / pi.

    Schulman, "Approximating KL divergence" (joschu.net/blog/kl-approx.html), estimator k3; DeepSeekMath, eq. 4.
    """
    log_ratio = reference - logps
    return log_ratio.exp() - log_ratio - 1


def policy_loss(
    logps: "Tensor",
    old: "Tensor",
    reference: "Tensor",
    advantages: "Tensor",
    mask: "Tensor",
    *,
    kl: float,
    clip: float = 0.2,
) -> "Tensor":
    """GRPO's loss (DeepSeekMath, eq. 3): the clipped surrogate, less `kl` times the divergence from the reference.

    All tensors are (solutions, tokens): log-probabilities now, when sampled, and of the reference, advantages, and 1
    for tokens that count. The mean is over tokens within a solution, then over solutions.
    """
    import torch

    ratio = (logps - old).exp()
    gain = torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    loss = kl * k3(logps, reference) - gain
    return ((loss * mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()
