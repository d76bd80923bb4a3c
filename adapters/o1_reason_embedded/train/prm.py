"""Process reward model: the policy's trunk with a scalar head, fitted to soft step labels by cross-entropy."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .model import Transformer, load, optimizers
from .policy import Report, schedule
from .rollouts import Labelled, step_ends


def train_prm(
    policy: Path,
    data: Sequence[Labelled],
    *,
    epochs: float,
    batch: int,
    seed: int,
    device: str,
    report: Report,
) -> tuple[Transformer, dict[str, object]]:
    """Binary cross-entropy with soft labels at the last token of each step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    model = load(policy, device, outputs=1)
    rows = np.array([len(d.tokens) for d in data])
    steps = max(1, int(epochs * rows.sum() / batch))
    forward = torch.compile(model, dynamic=False) if steps > 200 else model  # compiling takes a minute
    optimisers = optimizers(model, muon=0.01, adam=1e-3)
    rates = [group["lr"] for o in optimisers for group in o.param_groups]
    orders = [rng.permutation(size) for size in rows]
    taken = np.zeros(len(data), int)
    started, running = time.monotonic(), 0.0
    for step in range(steps):
        which = int(rng.choice(len(data), p=rows / rows.sum()))
        part, order = data[which], orders[which]
        pick = order[np.arange(taken[which], taken[which] + batch) % len(order)]
        taken[which] += batch
        ends = step_ends(part.n)
        ids = torch.from_numpy(part.tokens[pick, : ends[-1] + 1].astype(np.int64)).to(device)
        labels = torch.from_numpy(part.labels[pick]).to(device)
        for rate, group in zip(rates, (g for o in optimisers for g in o.param_groups), strict=True):
            group["lr"] = rate * schedule(step, steps)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = forward(ids)[:, ends, 0]
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels)
        for o in optimisers:
            o.zero_grad(set_to_none=True)
        loss.backward()
        for o in optimisers:
            o.step()
        if step % max(1, steps // 20) == 0 or step == steps - 1:
            running = loss.item()
            left = (time.monotonic() - started) / (step + 1) * (steps - step - 1)
            report(f"prm {step + 1}/{steps}  loss {running:.4f}  {left:.0f} s left")
    return model.eval(), {"steps": steps, "batch": batch, "traces": int(rows.sum()), "seed": seed}
