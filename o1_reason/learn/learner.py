"""What an adapter brings that can learn: models with weights in a folder, problems, an exact check, trainers.

Found by name as policies are: a module of the entry-point group ``o1_reason.adapters`` with ``learner(model)``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ..protocols import Policy, Verifier
from ..resolve import _adapter

Report = Callable[[str], None]  # a line on how far a long piece of work is


class Learner(Protocol):
    """A policy and a process reward model that can be trained.

    Weights are a folder with a policy and a reward model in it, or one of them: each is what begins with ``policy`` or
    with ``prm``, a file (``policy.safetensors``) or a folder (``policy/``). `settings` of the trainers are those of the
    adapter; what is left out has its default.

    Beyond these, ``plan(scale) -> Plan`` is honoured: what a round does unless it is told otherwise. And ``solver() ->
    Verifier``: an exact judge of unfinished states, too, 1 where the right answer can still be reached, else 0. Without
    it the reward model is judged on finished solutions alone.
    """

    def begin(self, out: Path, *, seed: int, scale: str, report: Report) -> None:
        """A first policy and reward model in the folder `out`."""
        ...

    def policy(self, weights: Path) -> Policy: ...  # weights: the round's folder

    def verifier(self, weights: Path) -> Verifier:
        """The process reward model alone."""
        ...

    def checker(self) -> Verifier:
        """An exact check of finished states."""
        ...

    def problems(self, split: str, n: int, seed: int) -> list[str]:
        """`n` questions of the split "train", "valid" or "test", other ones with another seed; none is in two splits.

        Raises ConfigurationError where a split has fewer.
        """
        ...

    def train_policy(
        self, data: Path, start: Path, out: Path, *, method: str, seed: int, report: Report, **settings: Any
    ) -> dict[str, Any]:
        """Train the policy of the folder `start` on `data` by "sft", "grpo" or "dpo" into the folder `out`."""
        ...

    def train_prm(
        self, data: Path, start: Path, out: Path, *, objective: str, seed: int, report: Report, **settings: Any
    ) -> dict[str, Any]:
        """Train a reward model from the weights in `start` by "classification", "regression" or "td" into `out`."""
        ...


def resolve_learner(name: str) -> Learner:
    """The learner ``ADAPTER:MODEL``; raises ConfigurationError where there is none."""
    return _adapter(name, "learner")(name.partition(":")[2])
