"""Process reward model: the policy's trunk with a scalar head, fitted to soft step labels by cross-entropy."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .loop import Report, fit
from .model import Transformer, load
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
    orders = [rng.permutation(size) for size in rows]
    taken = np.zeros(len(data), int)

    def loss(forward: Callable[[Tensor], Tensor]) -> Tensor:
        which = int(rng.choice(len(data), p=rows / rows.sum()))
        part, order = data[which], orders[which]
        pick = order[np.arange(taken[which], taken[which] + batch) % len(order)]
        taken[which] += batch
        ends = step_ends(part.n)
        ids = torch.from_numpy(part.tokens[pick, : ends[-1] + 1].astype(np.int64)).to(device)
        labels = torch.from_numpy(part.labels[pick]).to(device)
        return F.binary_cross_entropy_with_logits(forward(ids)[:, ends, 0].float(), labels)

    last = fit(model, loss, name="prm", steps=steps, muon=0.01, adam=1e-3, device=device, report=report)
    return model, {"steps": steps, "batch": batch, "traces": int(rows.sum()), "seed": seed, "loss": last}
