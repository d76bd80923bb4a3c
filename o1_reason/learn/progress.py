"""How far a long piece of work is, and what failed on the way."""

import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field, replace

from ..mdp import NOTHING, Usage

HOPELESS = 20  # tasks that fail before any succeeds


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed: its question, its seed, and why."""

    question: str
    seed: int
    error: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run has brought so far.

    total      tasks in all; None where nobody knows
    known      tasks that an earlier run had done
    added      tasks done by this one, `rows` the records it made
    right      searches of this one whose answer is right, of `judged` whose answer could be judged
    rollouts   drawn for labels
    usage      what the tasks of this run cost, what a ledger answered included
    """

    total: int | None = None
    known: int = 0
    added: int = 0
    rows: int = 0
    right: int = 0
    judged: int = 0
    rollouts: int = 0
    usage: Usage = NOTHING
    seconds: float = 0.0
    failures: tuple[Failure, ...] = ()

    @property
    def seconds_left(self) -> float | None:
        """As long as the rest takes at the pace so far; None where that cannot be told."""
        worked = self.added + len(self.failures)
        if self.total is None or not worked:
            return None
        return (self.total - self.known - worked) * self.seconds / worked


@dataclass(slots=True)
class Tracker:
    """Keeps a `Progress` up to date and tells of it; notices work that can never succeed."""

    items: Iterable[object]
    tell: Callable[[Progress], None]
    each: int = 1  # tasks per item
    state: Progress = field(default_factory=Progress)
    first: Exception | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if isinstance(self.items, Sized):
            self.state = Progress(total=len(self.items) * self.each)

    def known(self) -> None:
        self._update(known=self.state.known + 1)

    def added(self, usage: Usage, *, rows: int = 1, rollouts: int = 0, correct: bool | None = None) -> None:
        state = self.state
        self._update(
            added=state.added + 1,
            rows=state.rows + rows,
            right=state.right + (correct is True),
            judged=state.judged + (correct is not None),
            rollouts=state.rollouts + rollouts,
            usage=state.usage + usage,
        )

    def failed(self, question: str, seed: int, error: Exception) -> None:
        """Raises `error` if it looks as if nothing will ever succeed."""
        self.first = self.first or error
        self._update(failures=(*self.state.failures, Failure(question, seed, str(error) or type(error).__name__)))
        if len(self.state.failures) >= HOPELESS:
            self._give_up()

    def finish(self) -> Progress:
        """Raises the first error if all that was tried failed."""
        self._give_up()
        return replace(self.state, seconds=time.monotonic() - self.started)

    def _give_up(self) -> None:
        if self.first is not None and not self.state.added and not self.state.known:
            raise self.first

    def _update(self, **changes: object) -> None:
        self.state = replace(self.state, seconds=time.monotonic() - self.started, **changes)  # type: ignore[arg-type]
        self.tell(self.state)
