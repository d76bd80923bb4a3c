"""Reproduce the embedded weights: ``python -m o1_reason_embedded.train --seed 0 --scale ship --out weights``."""

import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..runtime import Shape
from .pipeline import Scale, build


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
    started = time.monotonic()

    def report(line: str) -> None:
        typer.echo(f"[{time.monotonic() - started:6.0f} s] {line}")
        sys.stdout.flush()

    build(
        out,
        scale,
        seed=seed,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        shape=Shape(width=width, layers=layers, hidden=hidden),
        tokens=tokens,
        report=report,
    )


if __name__ == "__main__":
    typer.run(main)
