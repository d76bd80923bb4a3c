"""The training loop that the policy and the reward model share."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from .model import Transformer, optimizers

Report = Callable[[str], None]


def fit(
    model: Transformer,
    batch: Callable[[Callable[[Tensor], Tensor]], Tensor],
    *,
    name: str,
    steps: int,
    muon: float,
    adam: float,
    report: Report,
    compiled: bool = True,
) -> float:
    """Minimise `batch(forward)`, the loss of the next batch, for `steps` steps; the last loss is returned.

    `compiled`: batches have few shapes, so that compiling the model, which takes a minute, pays in a long run.
    """
    device = next(model.parameters()).device.type
    network = torch.compile(model, dynamic=False) if compiled and steps > 200 else model

    def forward(ids: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return network(ids)

    model.train()
    optimisers = optimizers(model, muon=muon, adam=adam)
    groups = [group for o in optimisers for group in o.param_groups]
    rates = [group["lr"] for group in groups]
    started, shown = time.monotonic(), 0.0
    for step in range(steps):
        for rate, group in zip(rates, groups, strict=True):
            group["lr"] = rate * schedule(step, steps)
        loss = batch(forward)
        for o in optimisers:
            o.zero_grad(set_to_none=True)
        loss.backward()
        for o in optimisers:
            o.step()
        if step % max(1, steps // 40) == 0 or step == steps - 1:
            shown = loss.item()
            left = (time.monotonic() - started) / (step + 1) * (steps - step - 1)
            report(f"{name} {step + 1}/{steps}  loss {shown:.4f}  {left:.0f} s left")
    model.eval()
    return round(shown, 4)


def schedule(step: int, steps: int) -> float:
    """Warm-up over the first 2 %, then linear decay to 2 %."""
    warm = max(1, steps // 50)
    return min(1.0, (step + 1) / warm) * max(0.02, 1 - step / steps)
