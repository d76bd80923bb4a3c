"""The folder of a run of the learning loop: what was done, with which data, seeds and weights.

    run.json              the learner, its scale, the seed, what it started from, the plan of the next rounds
    rounds/000            the beginning: begin.json, measure.json, weights/
    rounds/001 ...        plan.json; a JSON file of each finished stage; data; the candidates prm/ and policy/;
                          weights/, the policy and the reward model in force after it
    undone/003-1 ...      rounds that were rolled back
    report.html

The folder is all the state there is. A stage works on files that nobody looks at until its own file is there, which is
written last and appears whole: a run killed at any moment goes on where it was.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .folders import digests, read_json, write_json
from .plan import Plan
from .store import _lock

BEGINNING = ("begin", "measure")
STAGES = ("collect", "label", "train_prm", "gate_prm", "train_policy", "gate_policy", "measure")
GATES = {"prm": "gate_prm", "policy": "gate_policy"}


@dataclass(frozen=True, slots=True)
class Round:
    """A round, finished or not. `stages` holds what its finished stages recorded, in their order."""

    number: int
    folder: Path
    stages: Mapping[str, Mapping[str, Any]]

    @property
    def order(self) -> tuple[str, ...]:
        """All stages that it has."""
        return STAGES if self.number else BEGINNING

    @property
    def finished(self) -> bool:
        return self.order[-1] in self.stages

    @property
    def left(self) -> tuple[str, ...]:
        """Stages to come."""
        return tuple(name for name in self.order if name not in self.stages)

    @property
    def weights(self) -> Path:
        """The policy and the reward model in force after it."""
        return self.folder / "weights"

    def accepted(self, role: str) -> bool | None:
        """Whether the gate let the new "policy" or "prm" in; None: it was not asked yet."""
        verdict = self.stages.get(GATES[role])
        return None if verdict is None else bool(verdict["accepted"])

    @property
    def seconds(self) -> float:
        return sum(stage["seconds"] for stage in self.stages.values())


class Record:
    """A run's folder, read and written. Only who holds `locked` may write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        return (self.path / "run.json").exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises ConfigurationError if another process is at work here. A killed process holds nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "a+b") as file:
            try:
                _lock(file, self.path / "lock")
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"another process is at work on the run in {self.path}; wait until it has ended, or name another "
                    "folder with --out"
                ) from error
            yield

    def check(self) -> None:
        """Raises ConfigurationError where there is no run."""
        if not self.exists:
            raise ConfigurationError(f"there is no run in {self.path}; o1-reason improve --out {self.path} begins one")

    @property
    def settings(self) -> dict[str, Any]:
        """Raises ConfigurationError where there is no run."""
        self.check()
        return read_json(self.path / "run.json")

    def open(self, learner: str, scale: str, seed: int, plan: Plan | None, start: Path | None = None) -> Plan:
        """Begin a run, or go on with it; the plan of its next rounds comes back. A plan that is given becomes it.

        Raises ConfigurationError where the folder holds a run of another learner, scale, seed or start.
        """
        found = None if start is None else {"folder": str(start), "files": weights_of(start)}
        if self.exists and start is None:
            found = self.settings.get("start")
        wanted = {"learner": learner, "scale": scale, "seed": seed, "start": found}
        if self.exists:
            known = self.settings
            for name, value in wanted.items():
                if known.get(name) != value:
                    raise ConfigurationError(
                        f"the run in {self.path} has {name} {known.get(name)!r}, not {value!r}; leave it so, or name "
                        "another folder with --out"
                    )
            plan = plan or Plan.from_data(known["plan"])
        plan = plan or Plan()
        write_json(self.path / "run.json", {**wanted, "plan": plan.to_data()})
        return plan

    def rounds(self) -> list[Round]:
        """Those in force, oldest first; at most the last one is unfinished."""
        return [_round(folder) for folder in _folders(self.path / "rounds")]

    def undone(self) -> list[Round]:
        """Those that were rolled back."""
        return [_round(folder) for folder in _folders(self.path / "undone")]

    def round(self, number: int) -> Round:
        return _round(self.folder(number))

    def folder(self, number: int) -> Path:
        return self.path / "rounds" / f"{number:03}"

    def begin(self, number: int, plan: Plan) -> tuple[Path, Plan]:
        """The folder of a round, and the plan it began with, which holds to its end."""
        folder = self.folder(number)
        file = folder / "plan.json"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, plan.to_data())
        return folder, Plan.from_data(read_json(file))

    def undo(self, after: int) -> list[int]:
        """Take all rounds after that one out of force, the last one first; their numbers."""
        gone = [each for each in reversed(self.rounds()) if each.number > after]
        (self.path / "undone").mkdir(exist_ok=True)
        for each in gone:
            each.folder.rename(self.path / "undone" / f"{each.number:03}-{self.attempts(each.number) + 1}")
        return [each.number for each in gone]

    def attempts(self, number: int) -> int:
        """How often the round was rolled back."""
        return sum(each.number == number for each in self.undone())


def weights_of(folder: Path) -> dict[str, str]:
    """The files of a policy and a reward model in a folder, with their sha256.

    Raises ConfigurationError where one of them is missing.
    """
    files = {name: digest for name, digest in digests(folder, folder).items() if name.startswith(tuple(GATES))}
    for role in GATES:
        if not any(name.startswith(role) for name in files):
            raise ConfigurationError(
                f"there are no weights of a {role} in {folder}; a run starts from a folder with a policy and its "
                "reward model, such as run/rounds/003/weights"
            )
    return files


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.name[:3].isdigit()) if path.exists() else []


def _round(folder: Path) -> Round:
    number = int(folder.name[:3])
    order = STAGES if number else BEGINNING
    found = {name: folder / f"{name}.json" for name in order}
    return Round(number, folder, {name: read_json(file) for name, file in found.items() if file.exists()})
