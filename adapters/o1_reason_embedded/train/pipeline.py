"""From random weights to a policy and a process reward model: traces -> policy -> rollouts -> reward model."""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from .. import vocab as v
from ..runtime import Shape
from . import traces
from .loop import Report
from .model import Transformer, load, save
from .policy import train_policy
from .prm import PRM, Objective, train_prm
from .rollouts import continuations, label


@dataclass(frozen=True)
class Recipe:
    """Everything but the seed that decides the weights."""

    samples: int  # random plays per pool; pools are thinned to `keep` rows
    keep: int
    tokens: int  # the policy trains on
    batch: int
    puzzles: int  # labelled traces
    rollouts: int  # per prefix
    epochs: float


class Scale(StrEnum):
    smoke = "smoke"
    tiny = "tiny"
    small = "small"
    ship = "ship"


RECIPES = {
    Scale.smoke: Recipe(100_000, 20_000, 20_000, 64, 200, 2, 1),
    Scale.tiny: Recipe(1_000_000, 200_000, 600_000, 64, 1_000, 4, 2),
    Scale.small: Recipe(3_000_000, 500_000, 3_000_000, 128, 3_000, 4, 2),
    Scale.ship: Recipe(12_000_000, 1_500_000, 20_000_000, 160, 40_000, 6, 3),
}
MIX = {"cards": 0.55, "four": 0.25, "three": 0.05, "five": 0.15}  # batches of policy training
LABELLED = {"spare cards": 0.35, "spare four": 0.15, "cards": 0.15, "four": 0.15, "three": 0.05, "five": 0.15}
SIZES = {  # numbers, greatest of them, part of the samples, reserved
    "cards": (4, 13, 1.0, False), "four": (4, traces.MAX_START, 1.0, False),
    "three": (3, traces.MAX_START, 0.1, False), "five": (5, traces.MAX_START, 1.0, False),
    "spare cards": (4, 13, 0.5, True), "spare four": (4, traces.MAX_START, 0.5, True),
}  # fmt: skip


def pools(seed: int, samples: int, keep: int, names: tuple[str, ...] = tuple(SIZES)) -> dict[str, traces.Pool]:
    """The named pools of traces; large ones are made in processes of their own."""
    make = partial(_pool, seed, samples, keep)
    sizes = [SIZES[name] for name in names]
    if samples < 1_000_000:
        return dict(zip(names, map(make, sizes), strict=True))
    with ProcessPoolExecutor(min(len(sizes), os.cpu_count() or 1), get_context("spawn")) as workers:
        return dict(zip(names, workers.map(make, sizes), strict=True))


def _pool(seed: int, samples: int, keep: int, size: tuple[int, int, float, bool]) -> traces.Pool:
    n, most, part, reserved = size
    return traces.pool(seed, n, most, int(samples * part), int(keep * part), reserved=reserved)


def build(out: Path, scale: Scale, *, seed: int, device: str, shape: Shape, tokens: int, report: Report) -> None:
    """Writes policy.safetensors and prm.safetensors; `tokens` for the policy, 0: as the scale says."""
    recipe = RECIPES[scale]
    torch.set_float32_matmul_precision("high")
    out.mkdir(parents=True, exist_ok=True)
    made = pools(seed, recipe.samples, recipe.keep)
    for name, pool in made.items():
        report(f"traces, {name}: {len(pool.tokens):,} of {pool.n} numbers")
    policy, record = train_policy(
        [(made[name], share) for name, share in MIX.items()],
        shape=shape,
        tokens=tokens or recipe.tokens,
        batch=recipe.batch,
        seed=seed,
        device=device,
        report=report,
    )
    save(policy, out / "policy.safetensors", {"scale": scale.value, **record})
    policy = load(out / "policy.safetensors", device)  # label with what ships, fp16 rounding included
    validate(policy, seed, report)
    sources = [(made[name], int(recipe.puzzles * share)) for name, share in LABELLED.items()]
    data = label(policy, sources, rollouts=recipe.rollouts, seed=seed, report=report)
    model = load(out / "policy.safetensors", device, outputs=1)
    record = train_prm(model, data, PRM(epochs=recipe.epochs), Objective(), seed=seed, report=report)
    save(model, out / "prm.safetensors", {"scale": scale.value, "rollouts": recipe.rollouts, **record})
    report(f"weights in {out}")


def validate(policy: Transformer, seed: int, report: Report) -> tuple[float, float, float, float]:
    """Of ranks 801-900, the share solved greedily, by one sample, by some of 16 samples, and by some of 64."""
    puzzles = traces.ranked_puzzles()[800:900]
    prompts = np.array([v.prompt_ids(numbers, 24) for numbers in puzzles])
    greedy = traces.check(continuations(policy, prompts, 4, 0.0, seed), 4).mean()
    sampled = traces.check(continuations(policy, np.repeat(prompts, 64, 0), 4, 1.0, seed), 4).reshape(-1, 64)
    one, some, any_ = sampled.mean(), sampled[:, :16].any(1).mean(), sampled.any(1).mean()
    report(f"validation: greedy {greedy:.2f}  one sample {one:.3f}  pass@16 {some:.2f}  pass@64 {any_:.2f}")
    return float(greedy), float(one), float(some), float(any_)
