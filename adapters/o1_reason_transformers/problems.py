"""A file of problems, split into train, valid and test, and the exact check of their answers."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from o1_reason.errors import ConfigurationError, VerifierError
from o1_reason.learn.problems import GoldChecker, Problem, read_problems, same_text
from o1_reason.mdp import Score, State

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class GoldVerifier:
    """1 where the answer of a finished state is the same as the question's gold answer to mathematics, else 0.

    `golds` holds the answer of each question, by `same_text` of it; `identity` tells them apart from others.
    """

    golds: Mapping[str, str]
    identity: str

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises VerifierError for a question that is none of the problems."""
        check = GoldChecker().check
        found: list[Score] = []
        for state in states:
            gold = self.golds.get(str(same_text(state.question)))
            if gold is None:
                raise VerifierError(f"the problems have no question {state.question[:60]!r}; name the file that has it")
            (right,) = await check(Problem(state.question, gold), [state])
            found.append(Score((float(bool(right)),)))
        return found


@dataclass(frozen=True, slots=True)
class ProblemFile:
    """Questions by split. Which split one is in depends on its words alone, so that it stays there in another file."""

    path: Path
    splits: Mapping[str, Sequence[str]]
    verifier: GoldVerifier

    def draw(self, split: str, n: int, seed: int) -> list[str]:
        """`n` questions in an order that depends on `seed`."""
        if split not in SPLITS:
            raise ConfigurationError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        known = self.splits[split]
        if n > len(known):
            raise ConfigurationError(
                f"the split {split!r} of {self.path} has {len(known)} problems, and {n} were asked for; ask for fewer, "
                "or name a larger file or other shares: valid=0.2&test=0.2"
            )
        return random.Random(f"{seed} {split}").sample(list(known), n)


def read_file(path: Path, valid: float, test: float) -> ProblemFile:
    """The problems of a file; the shares of two splits, about. Equal questions (`same_text`) count once.

    Raises ConfigurationError for a problem without gold answer, one with messages before it, or one with two answers.
    """
    golds: dict[str, str] = {}
    splits: dict[str, list[str]] = {name: [] for name in SPLITS}
    for problem in read_problems(path):
        key = str(same_text(problem.question))
        if problem.gold is None or problem.context:
            why = "has no gold answer" if problem.gold is None else "comes after other messages"
            raise ConfigurationError(f"{path}: {problem.question[:60]!r} {why}; a learner takes questions with gold")
        if golds.setdefault(key, problem.gold) != problem.gold:
            raise ConfigurationError(f"{path}: {problem.question[:60]!r} comes with two gold answers; leave one out")
        splits[_split(key, valid, test)].append(problem.question)
    identity = hashlib.sha256(repr(sorted(golds.items())).encode()).hexdigest()[:16]
    unique = {name: _distinct(questions) for name, questions in splits.items()}
    return ProblemFile(path, MappingProxyType(unique), GoldVerifier(golds, f"gold({identity})"))


def _distinct(questions: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    for question in questions:
        first.setdefault(str(same_text(question)), question)
    return list(first.values())


def _split(key: str, valid: float, test: float) -> str:
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    return "test" if place < test else "valid" if place < test + valid else "train"
