"""What the trainers on `transformers` and TRL share: arguments, progress, resuming."""

from pathlib import Path
from typing import Any

from .learner import Report

EXTRA = "training needs torch, transformers, datasets and trl: pip install 'o1-reason[train]'"


def arguments_of(settings: Any, out: Path, seed: int) -> dict[str, Any]:
    """What `transformers` and TRL both take, from settings with these fields."""
    import torch

    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(out / "checkpoints"),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch,
        "gradient_accumulation_steps": settings.accumulate,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.warmup,  # below 1: a share of the steps
        "save_strategy": "steps" if settings.save_every else "no",
        "save_steps": settings.save_every or 500,
        "save_total_limit": 1,
        "logging_steps": 1,
        "bf16": gpu if settings.bf16 is None else settings.bf16,
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu,
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
    }


def progress(report: Report, name: str) -> Any:
    """A callback that tells of some forty of the steps."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs and state.global_step % max(1, state.max_steps // 40) == 0:
                report(f"{name} {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}")

    return Progress()


def run(trainer: Any, out: Path) -> float:
    """Train, from the last checkpoint where there is one; the mean loss over the steps of this run."""
    from transformers.trainer_callback import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint

    trainer.remove_callback(PrinterCallback)
    folder = out / "checkpoints"
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return round(float(trainer.train(resume_from_checkpoint=last).training_loss), 6)
