"""Training a policy with TRL: supervised on searched solutions, step-level DPO, GRPO with step-level advantages.

Rows go to TRL as they are in the files (`rows`); a prompt may also be a list of messages, which TRL puts through the
model's chat template. Two things TRL does not do are done here:

* DPO on steps: TRL closes chosen and rejected with the end-of-text token, which would teach the model to stop after a
  good step. Here they are tokenized without one.
* GRPO's advantages by step (`advantages`): TRL has one per solution. Its loss takes one per token, of shape (B, T), from
  subclasses, and that is what `train_grpo` gives it.
"""

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..answers import extract_answer
from ..errors import ConfigurationError
from ..mdp import State, Step
from ..protocols import Verifier, check_scores
from ..segment import split_steps
from .advantages import Weights, advantages, spread
from .files import read_rows
from .hf import Report, arguments_of, progress, run
from .problems import Checker, Problem

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SFTSettings:
    """Fields as in `prm_trainer.PRMSettings`. A row that is longer than `max_length` tokens is cut at its end by TRL."""

    epochs: float = 1.0
    max_steps: int = 0
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-5
    warmup: float = 0.03
    max_length: int = 2048
    save_every: int = 500
    bf16: bool | None = None


@dataclass(frozen=True, slots=True)
class DPOSettings:
    """`beta`: the weight of staying near the policy it began with, the reference."""

    beta: float = 0.1
    epochs: float = 1.0
    max_steps: int = 0
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 5e-7
    warmup: float = 0.1
    max_length: int = 2048
    save_every: int = 500
    bf16: bool | None = None


@dataclass(frozen=True, slots=True)
class GRPOSettings:
    """`batch` is in solutions and must be a multiple of `group` (with `accumulate` and devices multiplied in).

    group              solutions of a question
    kl                 coefficient of the divergence (k3) from the policy it began with; 0: no reference is kept
    clip               epsilon of the ratio
    updates            optimizer steps on the same solutions
    weights            of the process reward and of the outcome
    max_new_tokens     of a solution
    separator          ends a step
    """

    group: int = 8
    kl: float = 0.02
    clip: float = 0.2
    updates: int = 1
    weights: Weights = field(default_factory=Weights)
    temperature: float = 1.0
    max_new_tokens: int = 512
    separator: str = "\n"
    epochs: float = 1.0
    max_steps: int = 0
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-6
    warmup: float = 0.03
    save_every: int = 100
    bf16: bool | None = None


def train_sft(
    model: str | Path | Any,
    data: str | Path,
    out: str | Path,
    settings: SFTSettings = SFTSettings(),
    *,
    tokenizer: Any = None,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Cross-entropy on the completions of prompt and completion rows; saves in `out` and returns the record.

    Begins with `model`, a name, a folder or a model with its `tokenizer`, or with the last checkpoint in
    out/checkpoints, where a run was stopped.
    """
    trl = _trl()
    rows = _rows(data, "prompt", "completion")
    arguments = trl.SFTConfig(**arguments_of(settings, Path(out), seed), max_length=settings.max_length)
    trainer = trl.SFTTrainer(
        _name(model), arguments, train_dataset=_dataset(rows), processing_class=tokenizer,
        callbacks=[progress(report, "sft")],
    )  # fmt: skip
    return _finished(trainer, settings, rows, out, seed)


def train_dpo(
    model: str | Path | Any,
    data: str | Path,
    out: str | Path,
    settings: DPOSettings = DPOSettings(),
    *,
    tokenizer: Any = None,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Step-level DPO (arXiv 2406.18629) on preference rows, whose prompt is the question and the path so far.

    Otherwise as `train_sft`.
    """
    trl = _trl()
    rows = _rows(data, "prompt", "chosen", "rejected")
    arguments = trl.DPOConfig(
        **arguments_of(settings, Path(out), seed), beta=settings.beta, max_length=settings.max_length
    )

    class StepDPOTrainer(trl.DPOTrainer):
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            if not isinstance(dataset[0]["prompt"], str):
                return super()._prepare_dataset(dataset, processing_class, args, dataset_name)
            return dataset.map(lambda row: _step_tokens(row, processing_class), remove_columns=dataset.column_names)

    trainer = StepDPOTrainer(
        _name(model), args=arguments, train_dataset=_dataset(rows), processing_class=tokenizer,
        callbacks=[progress(report, "dpo")],
    )  # fmt: skip
    return _finished(trainer, settings, rows, out, seed)


def _step_tokens(row: Row, tokenizer: Any) -> dict[str, list[int]]:
    """Prompt and steps tokenized apart, so that the path so far reads the same before both, and without an end."""
    first = tokenizer(row["prompt"])["input_ids"]
    return {"prompt_ids": first} | {
        f"{name}_ids": tokenizer(row[name], add_special_tokens=False)["input_ids"] for name in ("chosen", "rejected")
    }


def train_grpo(
    model: str | Path | Any,
    data: str | Path,
    out: str | Path,
    settings: GRPOSettings = GRPOSettings(),
    *,
    verifier: Verifier | None = None,
    checker: Checker | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """GRPO with step-level advantages on the questions of `data`: rows with "prompt", or traces; "gold" is passed on.

    verifier   the process reward model: one score per step
    checker    which answers are right

    A solution ends in its answer where it ended by itself. Otherwise as `train_sft`. Raises ConfigurationError where what
    `settings.weights` asks for is not given.
    """
    if (settings.weights.process and verifier is None) or (settings.weights.outcome and checker is None):
        raise ConfigurationError("give a verifier for the process reward and a checker for the outcome, or weigh it 0")
    trl = _trl()
    rows = _questions(data, settings.separator)
    judge = Judge(verifier, checker, settings)
    arguments = trl.GRPOConfig(
        **arguments_of(settings, Path(out), seed), num_generations=settings.group, beta=settings.kl,
        epsilon=settings.clip, num_iterations=settings.updates, temperature=settings.temperature,
        max_completion_length=settings.max_new_tokens, loss_type="grpo", use_bias_correction_kl=False,
    )  # fmt: skip
    trainer = _grpo_trainer(trl)(
        _name(model), judge.totals, args=arguments, train_dataset=_dataset(rows), processing_class=tokenizer,
        callbacks=[progress(report, "grpo")],
    )  # fmt: skip
    trainer.judge = judge
    return _finished(trainer, settings, rows, out, seed)


@dataclass
class Judge:
    """What solutions earn, step by step. `rewards` are those of the batch that was judged last, in its order."""

    verifier: Verifier | None
    checker: Checker | None
    settings: GRPOSettings
    steps: list[list[str]] = field(default_factory=list)
    process: list[list[float]] = field(default_factory=list)
    outcomes: list[float] = field(default_factory=list)

    def totals(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """TRL's reward function: judges the batch, and gives one number a solution, for the log."""
        golds = columns.get("gold") or [None] * len(prompts)
        ended = [ids[-1] in self.ends for ids in columns["completion_ids"]]
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        self.steps = [split_steps(text, self.settings.separator) for text in texts]
        states = [
            _state(_question(prompt), steps, done)
            for prompt, steps, done in zip(prompts, self.steps, ended, strict=True)
        ]
        _alone(self._judge(states, golds))
        weights = self.settings.weights
        return [
            weights.process * sum(steps) / max(1, len(steps)) + weights.outcome * (0.0 if math.isnan(whole) else whole)
            for steps, whole in zip(self.process, self.outcomes, strict=True)
        ]

    ends: frozenset[int] = frozenset()

    async def _judge(self, states: Sequence[State], golds: Sequence[str | None]) -> None:
        self.process = [[0.0] * len(state.steps) for state in states]
        shown = [i for i, state in enumerate(states) if state.steps]
        if self.verifier is not None and self.settings.weights.process and shown:
            asked = [states[i] for i in shown]
            for i, score in zip(shown, check_scores(await self.verifier.score(asked), asked), strict=True):
                if len(score.rewards) != len(states[i].steps):
                    raise ConfigurationError("step-level advantages need a score for each step; weigh the process 0")
                self.process[i] = list(score.rewards)
        self.outcomes = [math.nan] * len(states)
        if self.checker is not None and self.settings.weights.outcome:
            for i, (state, gold) in enumerate(zip(states, golds, strict=True)):
                right = (await self.checker.check(Problem(state.question, gold), [state]))[0]
                self.outcomes[i] = math.nan if right is None else float(right)

    def token_advantages(self, group: slice, ids: Sequence[Sequence[int]], decode: Callable[[Any], str], length: int) -> list[list[float]]:
        """For each solution of a group, the advantage of each of `length` tokens."""
        found = advantages(self.process[group], self.outcomes[group], self.settings.weights)
        return [
            spread(steps, step_ends(texts, row, decode), length)
            for steps, texts, row in zip(found, self.steps[group], ids, strict=True)
        ]


def step_ends(steps: Sequence[str], ids: Sequence[int], decode: Callable[[Any], str]) -> list[int]:
    """How many of the tokens `ids` there are up to the end of each step, whose texts follow each other in theirs.

    The separator belongs to the step that it ends; so does a token that spans it.
    """
    text = decode(ids)
    ends: list[int] = []
    at = 0
    for i, step in enumerate(steps):
        at = text.index(step, at) + len(step)
        after = text.index(steps[i + 1], at) if i + 1 < len(steps) else len(text)
        ends.append(bisect_left(range(len(ids)), after, lo=ends[-1] if ends else 0, key=lambda n: len(decode(ids[:n]))))
    return ends
