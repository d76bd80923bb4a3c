"""Supervised training of the policy on synthetic traces: next-token cross-entropy on the steps."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import vocab as v
from ..runtime import Shape
from .loop import Report, fit
from .model import Transformer
from .traces import Pool


def train_policy(
    pools: Sequence[tuple[Pool, float]],
    *,
    shape: Shape,
    tokens: int,
    batch: int,
    seed: int,
    device: str,
    report: Report,
) -> tuple[Transformer, dict[str, object]]:
    """Train from random weights on about `tokens` tokens; `pools` come with their share of the batches."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    model = Transformer(shape).to(device)
    shares = np.array([share for _, share in pools])
    lengths = np.array([pool.tokens.shape[1] for pool, _ in pools])
    steps = max(1, int(tokens / (batch * (shares @ lengths) / shares.sum())))

    def loss(forward: Callable[[Tensor], Tensor]) -> Tensor:
        pool = pools[int(rng.choice(len(pools), p=shares / shares.sum()))][0]
        ids = torch.from_numpy(pool.draw(rng, batch).astype(np.int64)).to(device, non_blocking=True)
        return next_token(forward, ids, pool.n)

    last = fit(model, loss, name="policy", steps=steps, muon=0.02, adam=3e-3, report=report)
    return model, {"steps": steps, "batch": batch, "seed": seed, "loss": last}


def next_token(forward: Callable[[Tensor], Tensor], ids: Tensor, n: int) -> Tensor:
    """Mean cross-entropy of the tokens after the prompt of `n`-number traces (rows, length)."""
    logits = forward(ids[:, :-1])
    first = v.prompt_length(n) - 1
    return F.cross_entropy(logits[:, first:].float().flatten(0, 1), ids[:, first + 1 :].flatten())
