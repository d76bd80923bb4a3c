"""The embedded models as a learner (`o1_reason.learn.learner.Learner`): first weights, problems, training."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from o1_reason.errors import ConfigurationError
from o1_reason.learn.plan import Plan
from o1_reason.protocols import Policy, Verifier

from .policy import EmbeddedPolicy
from .runtime import decoder
from .solver import Solver
from .train import traces
from .verifier import EmbeddedVerifier, RuleVerifier

Report = Callable[[str], None]
T = TypeVar("T")


class EmbeddedLearner:
    """Trains on two CPU cores in minutes. Needs PyTorch for training only."""

    def begin(self, out: Path, *, seed: int, scale: str, report: Report) -> None:
        """`scale` "smoke" (seconds, learns nothing), "tiny", "small" or "ship" (an hour)."""
        _need_torch()
        from .runtime import Shape
        from .train.pipeline import Scale, build

        if scale not in set(Scale):
            raise ConfigurationError(f"scale must be one of {', '.join(Scale)}; got {scale!r}")
        build(out, Scale(scale), seed=seed, device="cpu", shape=Shape(), tokens=0, report=report)
        decoder.cache_clear()

    def plan(self, scale: str) -> Plan:
        """What a round does: seconds of work at "smoke", minutes at the others."""
        match scale:
            case "smoke":
                return Plan(
                    problems=20, tokens=200, solutions=2, rollouts=2, gate_problems=10, gate_tries=1, gate_tokens=200,
                    measure_problems=10, measure_tokens=(100, 200),
                )  # fmt: skip
            case "tiny":
                return Plan(
                    problems=200, tokens=400, rollouts=3, method="grpo", policy={"steps": 50}, gate_problems=50,
                    gate_tries=2, measure_problems=50, measure_tokens=(100, 200, 400),
                )  # fmt: skip
            case "ship":  # by the strategy that serves best, so that nothing ships which is worse at that
                return Plan(
                    problems=2500, strategy="beam", option=(), tokens=3000, label="outcomes",
                    prm={"epochs": 2, "muon": 0.003, "adam": 0.0003}, policy={"epochs": 1}, gate_problems=220,
                    gate_tries=2, gate_tokens=3000, measure_tokens=(1500, 3000),
                )  # fmt: skip
        return Plan(method="grpo")

    def policy(self, weights: Path) -> Policy:
        return EmbeddedPolicy(weights=_existing(weights / "policy.safetensors"))

    def verifier(self, weights: Path) -> Verifier:
        return EmbeddedVerifier(_existing(weights / "prm.safetensors"))

    def checker(self) -> Verifier:
        return RuleVerifier()

    def solver(self) -> Verifier:
        """Exact on unfinished states, too; for measuring only."""
        return Solver()

    def problems(self, split: str, n: int, seed: int) -> list[str]:
        """Puzzles with four numbers and target 24, each of which has a solution in whole numbers.

        "test" is the ranks 901-1000; "valid" the ranks 801-900 and 568 others with numbers to 25; both come in an order
        that depends on `seed`. "train" comes from random plays that made 24, half of them with numbers to 13, and has
        no multiset of the other two. Half of them, 400 at most, are of those kept from the policy's first training: it
        has not learned them by heart, and fails on them as it does on new ones.
        """
        if split == "train":
            fresh = traces.played_puzzles(seed, min(n // 2, 400), reserved=True)
            known = dict.fromkeys(traces.played_puzzles(seed, n))
            both = list(dict.fromkeys([*fresh, *known]))[:n]
            return [" ".join(map(str, both[i])) for i in np.random.default_rng([seed, 9]).permutation(n)]
        if split not in ("valid", "test"):
            raise ConfigurationError(f'split must be "train", "valid" or "test"; got {split!r}')
        puzzles = traces.validation_puzzles() if split == "valid" else traces.ranked_puzzles()[900:1000]
        if n > len(puzzles):
            raise ConfigurationError(f"the split {split!r} has {len(puzzles)} puzzles; {n} were asked for")
        order = np.random.default_rng(seed).permutation(len(puzzles))[:n]
        return [" ".join(map(str, puzzles[i])) for i in order]

    def train_policy(
        self, data: Path, start: Path, out: Path, *, method: str, seed: int, report: Report, **settings: Any
    ) -> dict[str, Any]:
        """`method` "sft" (data: prompt and completion), "grpo" (data: any rows with prompts) or "dpo" (preferences).

        `settings` are the fields of `train.improve.SFT`, `GRPO` or `DPO`; of GRPO's weights `process` and `outcome`, of
        which the first is 0 unless given: so small a policy soon finds what the reward model is wrong about.
        """
        _need_torch()
        import torch

        from .train import improve
        from .train.model import load, save

        torch.manual_seed(seed)
        model = load(_existing(start / "policy.safetensors"), "cpu")
        match method:
            case "sft":
                record = improve.sft(model, data, _settings(improve.SFT, settings), seed=seed, report=report)
            case "dpo":
                record = improve.dpo(model, data, _settings(improve.DPO, settings), seed=seed, report=report)
            case "grpo":
                weights = improve.Weights(settings.pop("process", 0.0), settings.pop("outcome", 1.0))
                options = _settings(improve.GRPO, {**settings, "weights": weights})
                path = start / "prm.safetensors"
                prm = load(path, "cpu", outputs=1) if path.exists() and weights.process else None
                record = improve.grpo(model, data, options, prm, seed=seed, report=report)
            case _:
                raise ConfigurationError(f'method must be "sft", "grpo" or "dpo"; got {method!r}')
        out.mkdir(parents=True, exist_ok=True)
        save(model, out / "policy.safetensors", record)
        decoder.cache_clear()
        return record

    def train_prm(
        self, data: Path, start: Path, out: Path, *, objective: str, seed: int, report: Report, **settings: Any
    ) -> dict[str, Any]:
        """`objective` "classification" or "regression" (data: stepwise), or "td" (data: traces, or stepwise).

        `settings` are the fields of `train.prm.PRM` and of `Objective`. It goes on from the reward model in `start`;
        where there is none, or with ``fresh=True``, from the trunk of the policy there.
        """
        _need_torch()
        import torch

        from .train import corpus, prm
        from .train.model import load, save

        torch.manual_seed(seed)
        chosen = {name: settings.pop(name) for name in ("loss", "threshold", "gamma") if name in settings}
        goal = _settings(prm.Objective, {"name": objective, **chosen})
        options = _settings(prm.PRM, settings)
        path = start / "prm.safetensors"
        begin = path if path.exists() and not options.fresh else _existing(start / "policy.safetensors")
        model = load(begin, "cpu", outputs=1)
        if objective == "td":
            record = prm.train_td(model, corpus.groves(data), options, goal, seed=seed, report=report)
        else:
            record = prm.train_prm(model, corpus.labelled(data), options, goal, seed=seed, report=report)
        out.mkdir(parents=True, exist_ok=True)
        save(model, out / "prm.safetensors", record)
        decoder.cache_clear()
        return record


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ConfigurationError(f"no weights at {path}; begin with EmbeddedLearner().begin, or name another folder")
    return path


def _need_torch() -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise ConfigurationError('training needs PyTorch: pip install "o1-reason[train]"')


def _settings(kind: type[T], given: dict[str, Any]) -> T:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    strange = [name for name in given if name not in known]
    if strange:
        raise ConfigurationError(f"{kind.__name__} has no setting {strange[0]!r}; it has {', '.join(known)}")
    return kind(**given)
