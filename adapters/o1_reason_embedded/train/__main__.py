"""Reproduce the embedded weights: ``python -m o1_reason_embedded.train --seed 0 --scale ship --out weights``."""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from .. import vocab as v
from ..runtime import Shape
from . import traces
from .loop import Report
from .model import Transformer, load, save
from .policy import train_policy
from .prm import train_prm
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
    small = "small"
    ship = "ship"


RECIPES = {
    Scale.smoke: Recipe(100_000, 20_000, 20_000, 64, 200, 2, 1),
    Scale.small: Recipe(3_000_000, 500_000, 3_000_000, 128, 3_000, 4, 2),
    Scale.ship: Recipe(12_000_000, 1_500_000, 20_000_000, 160, 40_000, 6, 3),
}
MIX = {"cards": 0.55, "four": 0.25, "three": 0.05, "five": 0.15}  # batches of policy training
LABELLED = {"spare cards": 0.35, "spare four": 0.15, "cards": 0.15, "four": 0.15, "three": 0.05, "five": 0.15}


def _pool(seed: int, recipe: Recipe, size: tuple[int, int, float, bool]) -> traces.Pool:
    n, most, part, reserved = size
    return traces.pool(seed, n, most, int(recipe.samples * part), int(recipe.keep * part), reserved=reserved)


def main(
    out: Annotated[Path, typer.Option(help="Folder for policy.safetensors and prm.safetensors.")] = Path("weights"),
    scale: Annotated[Scale, typer.Option(help="ship: the weights in the package; small: two CPU cores.")] = Scale.small,
    seed: Annotated[int, typer.Option(help="Decides data, initial weights and order of batches.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; default: cuda where there is one.")] = "",
    width: Annotated[int, typer.Option(help="Model width.")] = 128,
    layers: Annotated[int, typer.Option(help="Decoder layers.")] = 4,
    hidden: Annotated[int, typer.Option(help="SwiGLU width.")] = 352,
    tokens: Annotated[int, typer.Option(help="Policy training tokens; 0: as the scale says.")] = 0,
) -> None:
    """Traces -> policy -> Monte-Carlo rollouts -> process reward model."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    recipe, started = RECIPES[scale], time.monotonic()
    torch.set_float32_matmul_precision("high")
    out.mkdir(parents=True, exist_ok=True)

    def report(line: str) -> None:
        typer.echo(f"[{time.monotonic() - started:6.0f} s] {line}")
        sys.stdout.flush()

    sizes = {
        "cards": (4, 13, 1.0, False), "four": (4, traces.MAX_START, 1.0, False),
        "three": (3, traces.MAX_START, 0.1, False), "five": (5, traces.MAX_START, 1.0, False),
        "spare cards": (4, 13, 0.5, True), "spare four": (4, traces.MAX_START, 0.5, True),
    }  # fmt: skip
    with ProcessPoolExecutor(min(len(sizes), os.cpu_count() or 1)) as workers:
        pools = dict(zip(sizes, workers.map(partial(_pool, seed, recipe), sizes.values()), strict=True))
    for name, pool in pools.items():
        report(f"traces, {name}: {len(pool.tokens):,} of {pool.n} numbers")
    mix = [(pools[name], share) for name, share in MIX.items()]
    policy, record = train_policy(
        mix,
        shape=Shape(width=width, layers=layers, hidden=hidden),
        tokens=tokens or recipe.tokens,
        batch=recipe.batch,
        seed=seed,
        device=device,
        report=report,
    )
    save(policy, out / "policy.safetensors", {"scale": scale.value, **record})
    policy = load(out / "policy.safetensors", device)  # label with what ships, fp16 rounding included
    validate(policy, seed, report)
    sources = [(pools[name], int(recipe.puzzles * share)) for name, share in LABELLED.items()]
    data = label(policy, sources, rollouts=recipe.rollouts, seed=seed, report=report)
    prm, record = train_prm(
        out / "policy.safetensors",
        data,
        epochs=recipe.epochs,
        batch=128,
        seed=seed,
        device=device,
        report=report,
    )
    save(prm, out / "prm.safetensors", {"scale": scale.value, "rollouts": recipe.rollouts, **record})
    report(f"weights in {out}")


def validate(policy: Transformer, seed: int, report: Report) -> None:
    """Greedy and sampled accuracy on the validation puzzles, ranks 801-900."""
    puzzles = traces.ranked_puzzles()[800:900]
    prompts = np.array([v.prompt_ids(numbers, 24) for numbers in puzzles])
    greedy = traces.check(continuations(policy, prompts, 4, 0.0, seed), 4).mean()
    sampled = traces.check(continuations(policy, np.repeat(prompts, 64, 0), 4, 1.0, seed), 4).reshape(-1, 64)
    report(
        f"validation: greedy {greedy:.2f}  one sample {sampled.mean():.3f}  pass@16 {sampled[:, :16].any(1).mean():.2f}"
        f"  pass@64 {sampled.any(1).mean():.2f}"
    )


if __name__ == "__main__":
    typer.run(main)
