"""Training a policy with TRL: supervised on searched solutions, step-level DPO, GRPO with step-level advantages.

Rows go to TRL as they are in the files (`rows`); a prompt may also be a list of messages, which TRL puts through the
model's chat template. Rows can be given in place of a file, to SFT and DPO as tokens: {"input_ids", "labels"}, -100
where nothing is to be learned, and {"prompt_ids", "chosen_ids", "rejected_ids"}. What TRL does not do is done here:

* DPO on steps: TRL closes chosen and rejected with the end-of-text token, which would teach the model to stop after a
  good step. Here they are tokenized without one.
* GRPO's advantages by step (`advantages`): TRL has one per solution. Its loss takes one per token, of shape (B, T),
  from subclasses, and that is what `train_grpo` gives it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..answers import extract_answer
from ..errors import ConfigurationError
from ..protocols import Verifier
from .advantages import Weights
from .files import read_rows
from .hf import EXTRA, Report, arguments_of, progress, run
from .problems import Checker
from .step_rewards import Judge, token_advantages

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SFTSettings:
    """Fields as in `prm_trainer.PRMSettings`. TRL cuts a row that is longer than `max_length` tokens at its end."""

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
    model: str | Path,
    data: str | Path | Sequence[Row],
    out: str | Path,
    settings: SFTSettings = SFTSettings(),
    *,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Cross-entropy on the completions of prompt and completion rows; saves in `out` and returns the record.

    Begins with `model`, a name or a folder with a tokenizer in it, or, where a run was stopped, with the last
    checkpoint in out/checkpoints; the reference of DPO and GRPO is `model` either way.
    """
    trl = _trl()
    rows = _rows(data, "prompt", "completion") if isinstance(data, str | Path) else data
    arguments = trl.SFTConfig(**arguments_of(settings, Path(out), seed), max_length=settings.max_length)
    trainer = trl.SFTTrainer(
        str(model), arguments, train_dataset=_dataset(rows),
        callbacks=[progress(report, "sft")],
    )  # fmt: skip
    return _finished(trainer, settings, rows, out, seed)


def train_dpo(
    model: str | Path,
    data: str | Path | Sequence[Row],
    out: str | Path,
    settings: DPOSettings = DPOSettings(),
    *,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Step-level DPO (arXiv 2406.18629) on preference rows, whose prompt is the question and the path so far.

    Otherwise as `train_sft`.
    """
    trl = _trl()
    rows = _rows(data, "prompt", "chosen", "rejected") if isinstance(data, str | Path) else data
    arguments = trl.DPOConfig(
        **arguments_of(settings, Path(out), seed), beta=settings.beta, max_length=settings.max_length
    )

    class StepDPOTrainer(trl.DPOTrainer):
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            if "prompt_ids" in dataset.column_names:
                return _fitting(dataset, settings.max_length, report)
            if not isinstance(dataset[0]["prompt"], str):
                return super()._prepare_dataset(dataset, processing_class, args, dataset_name)
            rows = dataset.map(lambda row: _step_tokens(row, processing_class), remove_columns=dataset.column_names)
            return _fitting(rows, settings.max_length, report)

    trainer = StepDPOTrainer(
        str(model), args=arguments, train_dataset=_dataset(rows),
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
    model: str | Path,
    data: str | Path | Sequence[Row],
    out: str | Path,
    settings: GRPOSettings = GRPOSettings(),
    *,
    verifier: Verifier | None = None,
    checker: Checker | None = None,
    answer: Callable[[str], str | None] = extract_answer,
    tokenizer: Any = None,
    template: Mapping[str, Any] | None = None,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """GRPO with step-level advantages on the questions of `data`: rows with "prompt", or traces; "gold" is passed on.

    verifier   the process reward model: one score per step
    checker    which answers are right
    answer     the answer in the text of the last step, of a solution that came to its end
    tokenizer  None: the model's; `template` are variables of its chat template

    Otherwise as `train_sft`. Raises ConfigurationError where what `settings.weights` asks for is not given.
    """
    if (settings.weights.process and verifier is None) or (settings.weights.outcome and checker is None):
        raise ConfigurationError("give a verifier for the process reward and a checker for the outcome, or weigh it 0")
    trl = _trl()
    rows = _questions(data, settings.separator) if isinstance(data, str | Path) else data
    weights = settings.weights
    judge = Judge(
        verifier if weights.process else None, checker if weights.outcome else None, weights, settings.separator, answer
    )
    arguments = trl.GRPOConfig(
        **arguments_of(settings, Path(out), seed), num_generations=settings.group, beta=settings.kl,
        epsilon=settings.clip, num_iterations=settings.updates, temperature=settings.temperature,
        max_completion_length=settings.max_new_tokens, loss_type="grpo", use_bias_correction_kl=False,
        chat_template_kwargs=dict(template or {}),
    )  # fmt: skip

    class StepGRPOTrainer(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batch = super()._generate_and_score_completions(inputs)
            group = self.num_generations if self.model.training else self.num_generations_eval
            return batch | {"advantages": token_advantages(judge, batch, group, self.processing_class)}

    trainer = StepGRPOTrainer(
        str(model), judge.totals, args=arguments, train_dataset=_dataset(rows),
        processing_class=tokenizer, callbacks=[progress(report, "grpo")],
    )  # fmt: skip
    judge.ends = frozenset(trainer.eos_token_ids)
    return _finished(trainer, settings, rows, out, seed)


def _fitting(dataset: Any, most: int, report: Report) -> Any:
    """The pairs that fit in `most` tokens, whole."""

    def length(row: Row) -> int:
        return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))

    kept = dataset.filter(lambda row: length(row) <= most)
    if len(kept) < len(dataset):
        report(f"{len(dataset) - len(kept)} pairs do not fit in {most} tokens")
    if not len(kept):
        raise ConfigurationError(f"no pair fits in {most} tokens; raise max_length")
    return kept


def _questions(data: str | Path, separator: str) -> list[Row]:
    """The distinct questions of rows or traces, each with the separator behind it, and what is known of the answer."""
    found: dict[Any, Row] = {}
    for _, row in read_rows(data):
        prompt = row.get("prompt", row.get("question"))
        if isinstance(prompt, str):
            prompt = prompt.removesuffix(separator) + separator
        if prompt:
            found.setdefault(str(prompt), {"prompt": prompt, "gold": row.get("gold")})
    if not found:
        raise ConfigurationError(f'{data} has no row with a "prompt" or a "question"')
    return list(found.values())


def _rows(data: str | Path, *names: str) -> list[Row]:
    """The named fields of the rows of a file; raises ConfigurationError where there is none, or one is missing."""
    found: list[Row] = []
    for line, row in read_rows(data):
        if missing := [name for name in names if name not in row]:
            raise ConfigurationError(f'{data}, line {line}: no "{missing[0]}"; give rows with {", ".join(names)}')
        found.append({name: row[name] for name in names})
    if not found:
        raise ConfigurationError(f"{data} has no rows; collect some data first")
    return found


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _trl() -> Any:
    try:
        import trl
    except ImportError as error:
        raise ConfigurationError(EXTRA) from error
    return trl


def _finished(trainer: Any, settings: Any, rows: Sequence[Row], out: str | Path, seed: int) -> dict[str, Any]:
    """Train, save, and what is to be remembered of it."""
    loss = run(trainer, Path(out))
    trainer.save_model(str(out))
    steps = trainer.state.global_step
    return {**asdict(settings), "rows": len(rows), "seed": seed, "loss": loss, "steps": steps}
