"""Process reward model: the policy's trunk with a scalar head, fitted by one of the objectives of `o1_reason.learn`."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from o1_reason.errors import ConfigurationError
from o1_reason.learn.objectives import Objective, td_targets

from .corpus import Grove, draw_groves
from .loop import Report, fit
from .model import Transformer
from .rollouts import Labelled, step_ends


@dataclass(frozen=True, slots=True)
class PRM:
    """Settings. `batch` is in traces ("td": in paths of whole trees); `refresh`, the optimizer steps after which the
    target network becomes a copy of the model, counts for "td" alone; `muon` and `adam` are learning rates."""

    epochs: float = 2.0
    batch: int = 128
    muon: float = 0.01
    adam: float = 1e-3
    refresh: int = 10
    fresh: bool = False  # begin with the policy's trunk and a new head, not with the reward model there is


def train_prm(
    model: Transformer,
    data: Sequence[Labelled],
    settings: PRM,
    objective: Objective,
    *,
    seed: int,
    report: Report,
) -> dict[str, object]:
    """Fit `model`, in place, to labels in [0, 1] (NaN: none) at the last token of each step; returns the record."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    device = next(model.parameters()).device
    rows = np.array([len(d.tokens) for d in data])
    orders = [rng.permutation(size) for size in rows]
    taken = np.zeros(len(data), int)

    def loss(forward: Callable[[Tensor], Tensor]) -> Tensor:
        which = int(rng.choice(len(data), p=rows / rows.sum()))
        part, order = data[which], orders[which]
        pick = order[np.arange(taken[which], taken[which] + settings.batch) % len(order)]
        taken[which] += settings.batch
        ends = step_ends(part.n)
        ids = torch.from_numpy(part.tokens[pick, : ends[-1] + 1].astype(np.int64)).to(device)
        labels = torch.from_numpy(part.labels[pick]).to(device)
        return objective(forward(ids)[:, ends, 0].float(), labels)

    steps = max(1, int(settings.epochs * rows.sum() / settings.batch))
    last = fit(model, loss, name="prm", steps=steps, muon=settings.muon, adam=settings.adam, report=report)
    return _record(settings, objective, steps, seed, last, traces=int(rows.sum()))


def train_td(
    model: Transformer, groves: Sequence[Grove], settings: PRM, objective: Objective, *, seed: int, report: Report
) -> dict[str, object]:
    """Fit `model`, in place, to r(s) + gamma max_a V(s + a) over the children of each state in search trees.

    A batch is whole trees, so that the maximum sees all siblings; each state counts once, though several paths pass it.
    """
    if not groves:
        raise ConfigurationError("no search tree in the data: collect with recorded searches first")
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 4])
    device = next(model.parameters()).device
    target = copy.deepcopy(model).eval()
    rows = sum(len(grove.tokens) for grove in groves)
    steps = max(1, int(settings.epochs * rows / settings.batch))
    batches = draw_groves(groves, settings.batch, rng)
    done = 0

    def loss(forward: Callable[[Tensor], Tensor]) -> Tensor:
        nonlocal done
        if done % settings.refresh == 0:
            target.load_state_dict(model.state_dict())
        done += 1
        batch = next(batches)
        ids = torch.from_numpy(batch.tokens.astype(np.int64)).to(device)
        row, at, parents, rewards, ends = (
            torch.from_numpy(a).to(device) for a in (batch.row, batch.at, batch.parents, batch.rewards, batch.ends)
        )
        with torch.no_grad():
            values = target(ids)[row, at, 0].float().sigmoid()
        return objective(forward(ids)[row, at, 0], td_targets(values, parents, rewards, ends, objective.gamma))

    last = fit(
        model, loss, name="prm", steps=steps, muon=settings.muon, adam=settings.adam, report=report, compiled=False
    )
    return _record(settings, objective, steps, seed, last, trees=len(groves), paths=rows)


def _record(
    settings: PRM, objective: Objective, steps: int, seed: int, loss: float, **counts: int
) -> dict[str, object]:
    return {"objective": asdict(objective), **asdict(settings), "steps": steps, "seed": seed, "loss": loss, **counts}
