"""Supervised training of the policy on synthetic traces: next-token cross-entropy on the steps."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .. import vocab as v
from ..runtime import Shape
from .model import Transformer, optimizers
from .traces import Pool

Report = Callable[[str], None]


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
    forward = torch.compile(model, dynamic=False) if steps > 200 else model  # compiling takes a minute
    optimisers = optimizers(model, muon=0.02, adam=3e-3)
    rates = [group["lr"] for o in optimisers for group in o.param_groups]
    started, seen, running = time.monotonic(), 0, 0.0
    for step in range(steps):
        pool = pools[int(rng.choice(len(pools), p=shares / shares.sum()))][0]
        ids = torch.from_numpy(pool.draw(rng, batch).astype(np.int64)).to(device, non_blocking=True)
        for rate, group in zip(rates, (g for o in optimisers for g in o.param_groups), strict=True):
            group["lr"] = rate * schedule(step, steps)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = forward(ids[:, :-1])
        first = v.prompt_length(pool.n) - 1
        loss = F.cross_entropy(logits[:, first:].float().flatten(0, 1), ids[:, first + 1 :].flatten())
        for o in optimisers:
            o.zero_grad(set_to_none=True)
        loss.backward()
        for o in optimisers:
            o.step()
        seen += ids.numel()
        if step % max(1, steps // 40) == 0 or step == steps - 1:
            running = loss.item()
            spent = time.monotonic() - started
            left = spent / (step + 1) * (steps - step - 1)
            report(f"policy {step + 1}/{steps}  loss {running:.4f}  {seen / spent:,.0f} tokens/s  {left:.0f} s left")
    return model.eval(), {"steps": steps, "batch": batch, "tokens": seen, "seed": seed, "loss": round(running, 4)}


def schedule(step: int, steps: int) -> float:
    """Warm-up over the first 2 %, then linear decay to 2 %."""
    warm = max(1, steps // 50)
    return min(1.0, (step + 1) / warm) * max(0.02, 1 - step / steps)
