"""The Llama-shaped decoder in PyTorch, for training and for fast batched rollouts; `..runtime` runs the same weights.

Parameter names are Hugging Face's, so a state dict also loads into `LlamaForCausalLM`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import Tensor, nn

from .. import vocab as v
from ..runtime import Shape

Caches = list[tuple[Tensor, Tensor]]


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-6)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor] | None, at: int) -> Tensor:
        rows, length, width = x.shape
        split = (rows, length, self.heads, width // self.heads)
        q, k, values = (p(x).view(split).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            cache[0][:rows, :, at : at + length] = k
            cache[1][:rows, :, at : at + length] = values
            k, values = cache[0][:rows, :, : at + length], cache[1][:rows, :, : at + length]
        mixed = F.scaled_dot_product_attention(q, k, values, is_causal=length > 1)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, width))


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.width)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor] | None, at: int) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, cache, at)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(v.VOCAB_SIZE, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width)
        size = shape.width // shape.heads
        angle = torch.outer(torch.arange(shape.context), shape.theta ** (-torch.arange(0, size, 2) / size))
        self.register_buffer("cos", torch.cat([angle.cos(), angle.cos()], -1), persistent=False)
        self.register_buffer("sin", torch.cat([angle.sin(), angle.sin()], -1), persistent=False)

    def forward(self, ids: Tensor, caches: Caches | None = None, at: int = 0) -> Tensor:
        x = self.embed_tokens(ids)
        turn = (self.cos[at : at + ids.shape[1]], self.sin[at : at + ids.shape[1]])
        for i, layer in enumerate(self.layers):
            x = layer(x, turn, caches[i] if caches else None, at)
        return self.norm(x)


class Transformer(nn.Module):
    """Trunk plus `lm_head`: next-token logits for the policy, one logit (outputs=1) for the reward model."""

    def __init__(self, shape: Shape, outputs: int = v.VOCAB_SIZE) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        self.lm_head = nn.Linear(shape.width, outputs, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.5 * shape.width**-0.5)
        with torch.no_grad():
            self.model.embed_tokens.weight[v.NUMBER_0 :] = number_features(shape.width)
            if outputs == v.VOCAB_SIZE:
                self.lm_head.weight[v.NUMBER_0 :] = 0.5 * number_features(shape.width) / shape.width**0.5

    def forward(self, ids: Tensor, caches: Caches | None = None, at: int = 0) -> Tensor:
        return self.lm_head(self.model(ids, caches, at))

    @torch.inference_mode()
    def sample(self, ids: Tensor, tokens: int, temperature: float, generator: torch.Generator) -> Tensor:
        """`ids` (rows, length), all one length, continued by `tokens` sampled tokens; 0 is greedy."""
        rows, start = ids.shape
        size = (rows, self.shape.heads, start + tokens, self.shape.width // self.shape.heads)
        caches = [
            (torch.empty(size, device=ids.device), torch.empty(size, device=ids.device)) for _ in self.model.layers
        ]
        out = torch.cat([ids, ids.new_zeros(rows, tokens)], 1)
        logits = self.lm_head(self.model(ids, caches)[:, -1])
        for at in range(start, start + tokens):
            if temperature:
                noise = -torch.empty_like(logits).exponential_(generator=generator).log()
                logits = logits.float() / temperature + noise
            out[:, at] = logits.argmax(-1)
            if at + 1 < start + tokens:
                logits = self(out[:, at : at + 1], caches, at)[:, -1]
        return out


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding, halves convention."""
    a, b = x.chunk(2, -1)
    return (x * turn[0] + torch.cat([-b, a], -1) * turn[1]).to(x.dtype)


def number_features(width: int) -> Tensor:
    """Fourier features of 0..319 (periods 2..., and of log n): a start from which arithmetic is soon learnt."""
    n = torch.arange(v.MAX_NUMBER + 1, dtype=torch.float32)
    periods = torch.tensor([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 25, 32, 50, 64, 100, 128, 200, 320.0, 640.0])
    periods = periods[: width // 4]
    angles = [2 * torch.pi * n[:, None] / periods, torch.log1p(n)[:, None] * torch.arange(1, 9)]
    angle = torch.cat(angles, 1)
    waves = torch.cat([angle.cos(), angle.sin()], 1)
    noise = torch.randn(len(n), width - waves.shape[1], generator=torch.Generator().manual_seed(0))
    return torch.cat([waves, 0.5 * noise], 1) * 0.5


def save(model: Transformer, path: Path, record: dict[str, object]) -> None:
    """Weights as fp16 safetensors; shape and training record in the metadata."""
    arrays = {k: p.detach().cpu().numpy().astype(np.float16) for k, p in model.state_dict().items()}
    save_file(arrays, path, {"shape": json.dumps(asdict(model.shape)), "record": json.dumps(record, sort_keys=True)})


def load(path: Path, device: str, outputs: int = v.VOCAB_SIZE) -> Transformer:
    """A model from `save`d weights; with other `outputs` than stored, the trunk only, with a fresh head."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        model = Transformer(Shape(**json.loads(file.metadata()["shape"])), outputs)
        state = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118
    if state["lm_head.weight"].shape[0] != outputs:
        state["lm_head.weight"] = torch.zeros_like(model.lm_head.weight)
    model.load_state_dict(state)
    return model.to(device)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (kellerjordan.github.io/posts/muon), in fp32.

    `torch.optim.Muon` iterates in bf16, which CPUs without bf16 units run 15 times slower than all the rest of a
    step; here equal shapes are stacked and multiplied as one batch.
    """

    def __init__(self, params: Sequence[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for same in shapes.values():
                grads = torch.stack([p.grad for p in same if p.grad is not None])
                buffer = self.state[same[0]].setdefault("momentum", torch.zeros_like(grads))
                buffer.lerp_(grads, 1 - group["momentum"])
                update = orthogonal(grads.lerp(buffer, group["momentum"]))
                scale = max(1.0, same[0].shape[0] / same[0].shape[1]) ** 0.5
                for p, u in zip(same, update, strict=True):
                    p.add_(u, alpha=-group["lr"] * scale)


def orthogonal(g: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices to a batch (..., rows, columns), by five quintic Newton-Schulz steps."""
    x = g.mT if g.shape[-2] > g.shape[-1] else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if g.shape[-2] > g.shape[-1] else x


def optimizers(model: nn.Module, muon: float, adam: float) -> Sequence[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, head and norms."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or ".layers." not in name]
    return Muon(inner, muon), torch.optim.AdamW(outer, lr=adam, betas=(0.9, 0.95), weight_decay=0.0)
