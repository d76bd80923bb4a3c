"""Step labels without a human or a solver: Monte-Carlo rollouts of the policy (Math-Shepherd, soft labels).

The label of a prefix is the share of the policy's own continuations that end in a trace which obeys the rules
(arXiv 2312.08935, eq. 4); the last step is labelled by its trace itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .. import vocab as v
from .loop import Report
from .model import Transformer
from .traces import Pool, Tokens, check


@dataclass
class Labelled:
    """Sampled traces of `n`-number puzzles (rows, length) and the label of each step (rows, n - 1), in [0, 1]."""

    n: int
    tokens: Tokens
    labels: NDArray[np.float32]


def step_ends(n: int) -> NDArray[np.int64]:
    """Position of the last token of each step."""
    return v.prompt_length(n) - 1 + np.cumsum([v.step_length(left) for left in range(n - 1, 0, -1)])


def continuations(model: Transformer, ids: NDArray[np.integer], n: int, temperature: float, seed: int) -> Tokens:
    """Each prefix of an `n`-number puzzle (rows, length), sampled to the end of its trace."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    total = int(step_ends(n)[-1]) + 2
    chunks: list[Tokens] = []
    rows = 16384 if device.type == "cuda" else 256
    for start in range(0, len(ids), rows):
        part = torch.from_numpy(ids[start : start + rows].astype(np.int64)).to(device)
        done = model.sample(part, total - part.shape[1], temperature, generator)
        chunks.append(done.cpu().numpy().astype(np.int16))
    return np.concatenate(chunks)


def label(
    model: Transformer,
    pools: Sequence[tuple[Pool, int]],
    *,
    rollouts: int,
    seed: int,
    report: Report,
) -> list[Labelled]:
    """For each pool: `count` puzzles, one trace each, `rollouts` continuations from every step but the last.

    The first step is drawn at temperatures 1 to 2.2, so that good and bad openings are both seen, and what
    follows at 1 to 1.5.
    """
    data: list[Labelled] = []
    for index, (pool, count) in enumerate(pools):
        rng = np.random.default_rng([seed, 2, index])
        n, ends = pool.n, step_ends(pool.n)
        prompts = pool.draw(rng, count)[:, : v.prompt_length(n)]
        parts: list[Tokens] = []
        for k, (wild, calm) in enumerate(((1.0, 1.0), (1.3, 1.0), (1.7, 1.2), (2.2, 1.5))):
            part = prompts[k::4]
            opened = continuations(model, part, n, wild, seed + 10 * index + k)[:, : ends[0] + 1]
            parts.append(continuations(model, opened, n, calm, seed + 10 * index + k + 4))
        tokens = np.concatenate(parts)
        labels = np.empty((len(tokens), n - 1), np.float32)
        labels[:, -1] = check(tokens, n)
        for step, end in enumerate(ends[:-1]):
            prefixes = np.repeat(tokens[:, : end + 1], rollouts, 0)
            finished = continuations(model, prefixes, n, 1.0, seed + 1000 * (step + 1) + index)
            labels[:, step] = check(finished, n).reshape(-1, rollouts).mean(1)
        means = " ".join(f"{mean:.3f}" for mean in labels.mean(0))
        report(f"rollouts: {len(tokens)} traces of {n} numbers, mean label after each step {means}")
        data.append(Labelled(n, tokens, labels))
    return data
