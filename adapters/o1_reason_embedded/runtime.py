"""Inference of the embedded decoder in plain numpy: KV cache, batched sampling, fp32 arithmetic on fp16 weights.

The architecture is Llama's (RMSNorm, rotary positions with the halves convention, SwiGLU); `train.model` is the
same in PyTorch.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from threadpoolctl import ThreadpoolController

Array = NDArray[np.floating[Any]]  # float32 throughout
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the decoder; `context` is in tokens."""

    width: int = 128
    heads: int = 4
    layers: int = 4
    hidden: int = 352
    context: int = 64
    theta: float = 10_000.0


class Cache:
    """Keys and values of `rows` sequences of one length, with room for `capacity` tokens each."""

    def __init__(self, shape: Shape, rows: int, capacity: int) -> None:
        size = (shape.layers, rows, shape.heads, capacity, shape.width // shape.heads)
        self.keys = np.empty(size, np.float32)
        self.values = np.empty(size, np.float32)
        self.length = 0

    def take(self, rows: Ids) -> "Cache":
        """The given sequences, each as often as it is named, free to go on by themselves."""
        copy = object.__new__(Cache)
        copy.keys = self.keys[:, rows]
        copy.values = self.values[:, rows]
        copy.length = self.length
        return copy


class Decoder:
    """Weights in memory. Thread-safe: nothing is written after construction."""

    def __init__(self, path: Path) -> None:
        with safe_open(str(path), "numpy") as file:
            metadata = file.metadata()
            w = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.shape = shape = Shape(**json.loads(metadata["shape"]))
        self.record: dict[str, object] = json.loads(metadata["record"])
        self._embed = w["model.embed_tokens.weight"]
        self._norm = w["model.norm.weight"]
        self._head = np.ascontiguousarray(w["lm_head.weight"].T)
        self._layers = [_layer(w, f"model.layers.{i}.") for i in range(shape.layers)]
        size = shape.width // shape.heads
        angle = np.outer(np.arange(shape.context), shape.theta ** (-np.arange(0, size, 2) / size))
        self._cos = np.cos(np.concatenate([angle, angle], 1)).astype(np.float32)
        self._sin = np.sin(np.concatenate([angle, angle], 1)).astype(np.float32)
        self._mask = np.triu(np.full((shape.context, shape.context), -np.inf, np.float32), 1)

    def forward(self, ids: Ids, cache: Cache) -> Array:
        """Hidden states (rows, length, width) of `ids` (rows, length), which follow what `cache` holds."""
        shape = self.shape
        rows, length = ids.shape
        start, end = cache.length, cache.length + length
        if end > shape.context:
            raise ValueError(f"{end} tokens exceed the context of {shape.context}")
        x = self._embed[ids]
        cos, sin = self._cos[start:end], self._sin[start:end]
        size = shape.width // shape.heads
        for i, (qkv, out, gate_up, down, norm_1, norm_2) in enumerate(self._layers):
            mixed = (_rms(x, norm_1) @ qkv).reshape(rows, length, 3, shape.heads, size).transpose(2, 0, 3, 1, 4)
            q = _rotate(mixed[0], cos, sin) * np.float32(size**-0.5)
            cache.keys[i, :, :, start:end] = _rotate(mixed[1], cos, sin)
            cache.values[i, :, :, start:end] = mixed[2]
            scores = q @ cache.keys[i, :, :, :end].swapaxes(-1, -2)
            if length > 1:
                scores += self._mask[start:end, :end]
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(-1, keepdims=True)
            attended = scores @ cache.values[i, :, :, :end]
            x = x + attended.transpose(0, 2, 1, 3).reshape(rows, length, shape.width) @ out
            gate, up = np.split(_rms(x, norm_2) @ gate_up, 2, axis=-1)
            x = x + (gate / (1 + np.exp(-gate)) * up) @ down
        cache.length = end
        return _rms(x, self._norm)

    def logits(self, hidden: Array) -> Array:
        """Output logits (..., outputs): next-token logits of a policy, one reward logit of a reward model."""
        return hidden @ self._head


def _layer(w: dict[str, Array], at: str) -> tuple[Array, ...]:
    qkv = np.concatenate([w[f"{at}self_attn.{p}_proj.weight"] for p in "qkv"]).T
    gate_up = np.concatenate([w[f"{at}mlp.gate_proj.weight"], w[f"{at}mlp.up_proj.weight"]]).T
    return (
        np.ascontiguousarray(qkv),
        np.ascontiguousarray(w[f"{at}self_attn.o_proj.weight"].T),
        np.ascontiguousarray(gate_up),
        np.ascontiguousarray(w[f"{at}mlp.down_proj.weight"].T),
        w[f"{at}input_layernorm.weight"],
        w[f"{at}post_attention_layernorm.weight"],
    )


def _rms(x: Array, weight: Array) -> Array:
    scale: Array = 1 / np.sqrt(np.einsum("...i,...i->...", x, x) / np.float32(x.shape[-1]) + np.float32(1e-6))
    return x * scale[..., None] * weight


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin


@cache
def decoder(path: Path) -> Decoder:
    """Weights are read once per process and never written."""
    return Decoder(path)


@cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="o1-reason-embedded")


async def compute(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run on the one thread that computes for all embedded models of the process, first come, first served.

    So calls finish in the order in which they were made, and a search with a seed repeats exactly.
    """
    return await asyncio.get_running_loop().run_in_executor(_worker(), _alone, function, *arguments)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """With one BLAS thread: on matrices of this size a second one costs more than it brings."""
    with _blas().limit(limits=1, user_api="blas"):
        return function(*arguments)
