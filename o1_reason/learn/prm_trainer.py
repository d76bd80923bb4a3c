"""Training a process reward model on `transformers`: a token-classification head that is read where a step ends.

The head has two classes, of which 1 is "right", as Qwen2.5-Math-PRM's and TRL's had, so that what was trained is served
and read as those are (`o1_reason_openai.prm`, route "pooling"): softmax, class 1, at the last token of each mark. The
objectives see the difference of the two logits, whose sigmoid that probability is.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .hf import EXTRA, Report, arguments_of, progress, run
from .objectives import Objective
from .prm_data import Encoder, Example, Format, Lines, collate, read_examples, tree_examples, tree_loss


@dataclass(frozen=True, slots=True)
class PRMSettings:
    """How to train.

    batch           rows, of "td" trees, per device and forward pass; `accumulate` of them make an optimizer step
    max_steps       optimizer steps; 0: as many as `epochs` take
    max_length      tokens of a row; steps that do not fit are left out whole, from the end, and counted
    target_every    optimizer steps after which the target network of "td" becomes a copy of the model
    save_every      optimizer steps between checkpoints; 0: none. For "td" a multiple of `target_every`, so that a run
                    that goes on has the target network it would have had
    bf16            None: on GPUs
    """

    objective: Objective = field(default_factory=Objective)
    epochs: float = 1.0
    max_steps: int = 0
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-5
    warmup: float = 0.03  # share of the steps
    max_length: int = 2048
    target_every: int = 50
    save_every: int = 500
    bf16: bool | None = None

    def __post_init__(self) -> None:
        if self.target_every < 1 or (self.objective.name == "td" and self.save_every % self.target_every):
            raise ConfigurationError(
                f"save_every must be a multiple of target_every; got {self.save_every} and {self.target_every}"
            )


def train_prm(
    model: str | Path | Any,
    data: str | Path | Sequence[Example],
    out: str | Path,
    settings: PRMSettings = PRMSettings(),
    *,
    format: Format = Lines(),  # noqa: B008 - frozen
    tokenizer: Any = None,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Train, save model and tokenizer in `out`, and return the record of it.

    model       a name or folder for `AutoModelForTokenClassification`, or such a model with two labels (then give its
                `tokenizer`, too); a causal model's name gives it a new head
    data        a file of stepwise rows; for "td", what `tree_rows` made
    format      as it will be served

    A run that was stopped goes on from its last checkpoint in out/checkpoints, as if it had not been. Raises
    ConfigurationError for what cannot be trained.
    """
    try:
        from transformers import set_seed
    except ImportError as error:
        raise ConfigurationError(EXTRA) from error
    set_seed(seed)
    network, tokenizer = _loaded(model, tokenizer)
    encode = Encoder(tokenizer, format, settings.max_length)
    if isinstance(data, str | Path):
        if settings.objective.name == "td":
            raise ConfigurationError('"td" learns from trees: give what tree_rows(traces, checker) returns')
        examples = read_examples(data, encode)
    else:
        examples = tree_examples(data, encode)
    if encode.cut["steps"]:
        report(f"{encode.cut['steps']} steps of {encode.cut['rows']} rows do not fit in {encode.max_length} tokens")
    trainer = _trainer(network, tokenizer, examples, Path(out), settings, seed, report)
    loss = run(trainer, Path(out))
    trainer.save_model(str(out))
    tokenizer.save_pretrained(str(out))
    return {**asdict(settings), "rows": len(examples), "cut": encode.cut, "seed": seed, "loss": loss,
            "steps": trainer.state.global_step}  # fmt: skip


def _loaded(model: Any, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    if isinstance(model, str | Path):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(str(model))
        model = AutoModelForTokenClassification.from_pretrained(str(model), num_labels=2)
    if tokenizer is None or model.config.num_labels != 2:
        raise ConfigurationError("give the model's tokenizer, and a model with two labels: num_labels=2")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _trainer(
    network: Any, tokenizer: Any, examples: list[Example], out: Path, settings: PRMSettings, seed: int, report: Report
) -> Any:
    from transformers import Trainer, TrainingArguments

    objective = settings.objective
    arguments = TrainingArguments(**arguments_of(settings, out, seed), remove_unused_columns=False)

    class PRMTrainer(Trainer):
        """`transformers.Trainer` with the objective as its loss."""

        target: Any = None

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            asked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            two = model(**asked).logits
            logits = two[..., 1] - two[..., 0]
            if objective.name != "td":
                return objective(logits, inputs["labels"])
            return tree_loss(objective, logits, self._frozen(asked), inputs)

        def _frozen(self, asked: Any) -> Any:
            """The logits of the target network, which is refreshed every `target_every` optimizer steps."""
            import torch

            step = self.state.global_step
            if self.target is None or step >= self.due:
                self.target = copy.deepcopy(self.accelerator.unwrap_model(self.model)).eval().requires_grad_(False)
                self.due = step - step % settings.target_every + settings.target_every
            with torch.no_grad():
                two = self.target(**asked).logits
            return two[..., 1] - two[..., 0]

    trainer = PRMTrainer(
        model=network,
        args=arguments,
        train_dataset=examples,  # type: ignore[arg-type]
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
        callbacks=[progress(report, "prm")],
    )
    trainer.model_accepts_loss_kwargs = (
        False  # the loss is a mean over labelled steps, averaged over accumulated batches
    )
    return trainer
