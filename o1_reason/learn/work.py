"""A stage of a round, and what it has to go on from."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..protocols import Strategy
from ..resolve import resolve_strategy
from ..settings import with_options
from .evaluate import Side
from .learner import Learner
from .plan import Plan
from .progress import Progress
from .record import Record


@dataclass(frozen=True, slots=True)
class Work:
    """`tell` takes a line on how far it is, and the share that is done."""

    record: Record
    learner: Learner
    scale: str
    plan: Plan
    run_seed: int
    number: int
    stage: str
    folder: Path
    ray: str | None
    tell: Callable[[str, float | None], None]

    @property
    def seed(self) -> int:
        return self.seed_of(self.number, self.record.attempts(self.number), self.stage)

    def seed_of(self, *what: Any) -> int:
        """Another one for everything that is drawn; a round that was rolled back draws anew."""
        return int.from_bytes(hashlib.sha256(json.dumps([self.run_seed, *what]).encode()).digest()[:4]) >> 1

    @property
    def before(self) -> Path:
        """The weights in force when the round began."""
        return self.record.folder(self.number - 1) / "weights"

    def in_force(self, role: str) -> Path:
        """Where the "policy" or "prm" in force is, as far as the round has got."""
        new = self.record.round(self.number).accepted(role)
        return self.folder / role if new else self.before

    @property
    def scratch(self) -> Path:
        """A folder for what a killed stage can go on from; it goes when the stage is done."""
        path = self.folder / "unfinished"
        path.mkdir(exist_ok=True)
        return path

    @property
    def strategy(self) -> Strategy:
        return with_options(resolve_strategy(self.plan.strategy), self.plan.option)

    def line(self, text: str) -> None:
        self.tell(text, None)

    def count(self, done: int, total: int) -> None:
        self.tell(f"{done} of {total}", done / total)

    def progress(self, so_far: Progress) -> None:
        done = so_far.known + so_far.added + len(so_far.failures)
        self.tell(f"{done} of {so_far.total}", done / so_far.total if so_far.total else None)

    def side(self, policy: Path, prm: Path, tries: int = 1) -> Side:
        who, ledger = self.learner, str(self.scratch / "calls.sqlite")
        return Side(who.policy(policy), who.verifier(prm), who.checker(), tries, self.seed, ledger=ledger, ray=self.ray)
