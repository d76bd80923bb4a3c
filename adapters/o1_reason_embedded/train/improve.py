"""Policy iteration for the embedded policy: supervised on searched solutions, GRPO, and step-level DPO.

All begin with the given weights and keep to them: "sft" mixes in a share of the traces of the first training, the
others hold the policy near the one they began with, by their coefficients `kl` and `beta`.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from o1_reason.errors import ConfigurationError
from o1_reason.learn.advantages import Weights, advantages, policy_loss, spread

from .. import vocab as v
from . import corpus
from .loop import Report, fit
from .model import Transformer
from .pipeline import MIX, pools
from .policy import next_token
from .rollouts import continuations, step_ends
from .traces import Tokens, check

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class SFT:
    """`base` in [0, 1): the share of batches of base traces, which keep the policy from forgetting; `batch` in traces;
    `epochs` over the searched solutions."""

    epochs: float = 2.0
    batch: int = 64
    base: float = 0.5
    muon: float = 3e-3
    adam: float = 3e-4


@dataclass(frozen=True, slots=True)
class GRPO:
    """`steps` optimizer steps; a batch is `group` samples at temperature 1 of each of `prompts` questions, used for
    `updates` steps; `kl`, the coefficient of the divergence from the policy it began with; `clip`, of the ratio."""

    steps: int = 200
    prompts: int = 32
    group: int = 8
    updates: int = 1
    kl: float = 0.05
    clip: float = 0.2
    weights: Weights = field(default_factory=Weights)
    muon: float = 1e-3
    adam: float = 1e-4


@dataclass(frozen=True, slots=True)
class DPO:
    """`beta`, how far the policy may go from the one it began with (less: farther); `batch` in pairs."""

    epochs: float = 1.0
    batch: int = 64
    beta: float = 0.1
    muon: float = 1e-3
    adam: float = 1e-4


Record = dict[str, object]


def sft(model: Transformer, data: Path, settings: SFT, *, seed: int, report: Report) -> Record:
    """Next-token cross-entropy on the finished solutions in `data` (prompt and completion rows)."""
    if not 0 <= settings.base < 1:
        raise ConfigurationError(f"base must be in [0, 1); got {settings.base}")
    found = corpus.solutions(data)
    rng = np.random.default_rng([seed, 5])
    device = next(model.parameters()).device
    counts = np.array([len(rows) for rows in found.values()])
    base = pools(seed, 200_000, 100_000, tuple(MIX)) if settings.base else {}
    shares = np.array([MIX[name] for name in base])
    steps = max(1, round(settings.epochs * counts.sum() / settings.batch / (1 - settings.base)))

    def loss(forward: Forward) -> Tensor:
        if rng.random() < settings.base:
            pool = base[list(base)[int(rng.choice(len(shares), p=shares / shares.sum()))]]
            n, rows = pool.n, pool.draw(rng, settings.batch)
        else:
            n = list(found)[int(rng.choice(len(counts), p=counts / counts.sum()))]
            rows = found[n][rng.integers(len(found[n]), size=settings.batch)]
        return next_token(forward, torch.from_numpy(rows.astype(np.int64)).to(device), n)

    last = fit(model, loss, name="sft", steps=steps, muon=settings.muon, adam=settings.adam, report=report)
    return _record("sft", settings, steps, seed, last, solutions=int(counts.sum()))


@dataclass
class Rollouts:
    """Samples of some groups (rows, length), their log-probabilities when sampled, and advantages, by token."""

    ids: Tensor
    old: Tensor
    reference: Tensor
    advantages: Tensor
    right: float


def grpo(
    model: Transformer, data: Path, settings: GRPO, prm: Transformer | None, *, seed: int, report: Report
) -> Record:
    """GRPO with step-level advantages on the questions of `data`; the rules judge outcomes, `prm` the steps."""
    if prm is None and settings.weights.process:
        raise ConfigurationError("step-level rewards need prm.safetensors beside the policy; or set process=0")
    if settings.group < 2 or min(settings.steps, settings.prompts, settings.updates) < 1:
        raise ConfigurationError("need groups of at least 2, and steps, prompts and updates of at least 1")
    questions = corpus.prompts(data)
    rng = np.random.default_rng([seed, 6])
    counts = np.array([len(rows) for rows in questions.values()])
    reference = copy.deepcopy(model).eval()
    shares: list[float] = []
    done = 0
    batch: Rollouts | None = None

    def loss(forward: Forward) -> Tensor:
        nonlocal done, batch
        if batch is None or done % settings.updates == 0:
            n = list(questions)[int(rng.choice(len(counts), p=counts / counts.sum()))]
            rows = questions[n]
            drawn = rows[rng.choice(len(rows), settings.prompts, replace=len(rows) < settings.prompts)]
            batch = _roll(model, reference, prm, drawn, n, settings, int(rng.integers(2**31)))
            shares.append(batch.right)
        done += 1
        now = log_probabilities(forward, batch.ids, batch.old.shape[1])
        mask = torch.ones_like(now)
        return policy_loss(now, batch.old, batch.reference, batch.advantages, mask, kl=settings.kl, clip=settings.clip)

    last = fit(
        model, loss, name="grpo", steps=settings.steps, muon=settings.muon, adam=settings.adam, report=report,
        compiled=False,
    )  # fmt: skip
    tenth = max(1, len(shares) // 10)
    first, final = (round(float(np.mean(part)), 4) for part in (shares[:tenth], shares[-tenth:]))
    report(f"grpo: {first:.1%} of the first samples were right, {final:.1%} of the last")
    return _record("grpo", settings, settings.steps, seed, last, right_first=first, right_last=final)


def _roll(
    model: Transformer,
    reference: Transformer,
    prm: Transformer | None,
    prompts: Tokens,
    n: int,
    settings: GRPO,
    seed: int,
) -> Rollouts:
    """Sample groups, judge them, and spread the advantages of steps over their tokens."""
    device = next(model.parameters()).device
    rows = continuations(model, np.repeat(prompts, settings.group, 0), n, 1.0, seed)
    right = check(rows, n)
    ids = torch.from_numpy(rows.astype(np.int64)).to(device)
    ends = step_ends(n)
    start, tokens = v.prompt_length(n), rows.shape[1] - v.prompt_length(n)
    with torch.no_grad():
        process = np.zeros((len(rows), n - 1)) if prm is None else prm(ids)[:, ends, 0].float().sigmoid().cpu().numpy()
        old, before = (log_probabilities(net, ids, tokens) for net in (model, reference))
    found: list[list[float]] = []
    for at in range(0, len(rows), settings.group):
        group = slice(at, at + settings.group)
        by_step = advantages(process[group].tolist(), right[group].astype(float).tolist(), settings.weights)
        found += [spread(steps, (ends + 1 - start).tolist(), tokens) for steps in by_step]
    return Rollouts(ids, old, before, torch.tensor(found, device=device), float(right.mean()))


def log_probabilities(forward: Forward, ids: Tensor, tokens: int) -> Tensor:
    """Of the last `tokens` tokens of each row (rows, tokens)."""
    logits = forward(ids[:, :-1])[:, -tokens:].float()
    return logits.log_softmax(-1).gather(-1, ids[:, -tokens:, None])[..., 0]


def dpo(model: Transformer, data: Path, settings: DPO, *, seed: int, report: Report) -> Record:
    """Step-level DPO on siblings (preference rows): -log sigmoid(beta (margin of the policy - that of the reference)).

    Rafailov et al. 2023 (arXiv 2305.18290), eq. 7, where chosen and rejected are steps that follow the same state
    (Step-DPO, arXiv 2406.18629).
    """
    found = corpus.pairs(data)
    rng = np.random.default_rng([seed, 7])
    device = next(model.parameters()).device
    counts = np.array([len(group.chosen) for group in found])
    reference = copy.deepcopy(model).eval()
    steps = max(1, round(settings.epochs * counts.sum() / settings.batch))

    def loss(forward: Forward) -> Tensor:
        group = found[int(rng.choice(len(counts), p=counts / counts.sum()))]
        pick = rng.integers(len(group.chosen), size=settings.batch)
        both = np.concatenate([group.chosen[pick], group.rejected[pick]]).astype(np.int64)
        ids = torch.from_numpy(both).to(device)
        tokens = ids.shape[1] - group.start
        with torch.no_grad():
            before = log_probabilities(reference, ids, tokens).sum(-1)
        chosen, rejected = (log_probabilities(forward, ids, tokens).sum(-1) - before).chunk(2)
        return -F.logsigmoid(settings.beta * (chosen - rejected)).mean()

    last = fit(
        model, loss, name="dpo", steps=steps, muon=settings.muon, adam=settings.adam, report=report, compiled=False
    )
    return _record("dpo", settings, steps, seed, last, pairs=int(counts.sum()))


def _record(method: str, settings: SFT | GRPO | DPO, steps: int, seed: int, loss: float, **counts: float) -> Record:
    return {"method": method, **asdict(settings), "steps": steps, "seed": seed, "loss": loss, **counts}
