"""A small learner that truly learns: digits from 0 to 3 whose sum is to be a given number.

Policy and reward model are tables over (what is missing, digits left): chances of the next digit, and of a right end.
Any number of problems: each has a name, which the tables do not see. No PyTorch.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from o1_reason.learn.plan import Plan
from o1_reason.mdp import Proposals, Score, Step, Usage

DIGITS, LENGTH = range(4), 4
STRIDE = {"train": 0, "valid": 1, "test": 2}


def goal(question):
    """ "sum to 7, problem 12" """
    return int(question.split(",")[0].split()[-1])


def place(state):
    """What is missing, and how many digits are left."""
    return goal(state.question) - sum(int(step.text) for step in state.steps), LENGTH - len(state.steps)


def key(missing, left):
    return f"{missing}/{left}"


def table(path):
    return json.loads(path.read_text())


@dataclass(frozen=True)
class Policy:
    file: Path

    @cached_property
    def chances(self):
        return table(self.file)

    @property
    def identity(self):
        return f"sums-policy/{hashlib.sha256(self.file.read_bytes()).hexdigest()[:16]}"

    def bound(self, state, n, max_steps):
        return Usage(1, 1 + len(state.steps), n * min(max_steps, LENGTH - len(state.steps)))

    async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
        dice = random.Random(seed)
        paths = [self._path(state, max_steps, temperature, dice) for _ in range(1 if temperature == 0 else n)]
        return Proposals(tuple(paths), Usage(1, 1 + len(state.steps), sum(map(len, paths))))

    def _path(self, state, max_steps, temperature, dice):
        path = []
        while len(path) < max_steps and (left := place(state)[1]) > 0:
            weights = self.chances.get(key(*place(state)), [1] * len(DIGITS))
            digit = weights.index(max(weights)) if temperature == 0 else dice.choices(DIGITS, weights)[0]
            total = goal(state.question) - place(state)[0] + digit
            path.append(Step(str(digit), left == 1, str(total) if left == 1 else None, tokens=1))
            state += path[-1]
        return tuple(path)


@dataclass(frozen=True)
class RewardModel:
    file: Path

    @cached_property
    def values(self):
        return table(self.file)

    @property
    def identity(self):
        return f"sums-prm/{hashlib.sha256(self.file.read_bytes()).hexdigest()[:16]}"

    def bound(self, state, n, max_steps):
        return Usage(1, n * (1 + min(LENGTH, len(state.steps) + max_steps)))

    async def score(self, states):
        return [
            Score(self._rewards(state), usage=Usage(int(i == 0), 1 + len(state.steps)))
            for i, state in enumerate(states)
        ]

    def _rewards(self, state):
        missing, left = goal(state.question), LENGTH
        rewards = []
        for step in state.steps:
            missing, left = missing - int(step.text), left - 1
            rewards.append(self.values.get(key(missing, left), 0.5))
        return tuple(rewards) or (0.5,)


class Sum:
    """Whether the digits make the sum; of unfinished states, whether they still can."""

    identity = "sums-rule"

    def bound(self, state, n, max_steps):
        return Usage()

    async def score(self, states):
        return [Score((float(0 <= missing <= max(DIGITS) * left),)) for missing, left in map(place, states)]


class Learner:
    """`rate` is how far a table moves towards the data in one training."""

    def __init__(self, rate=0.5):
        self.rate = rate

    def begin(self, out, *, seed, scale, report):
        dice = random.Random(seed)
        report(f"begin {scale}")
        places = [key(missing, left) for missing in range(-12, 13) for left in range(LENGTH + 1)]
        chances = {at: [1 + dice.random() for _ in DIGITS] for at in places}
        (out / "policy.json").write_text(json.dumps(chances))
        (out / "prm.json").write_text(json.dumps({at: dice.random() for at in places}))

    def plan(self, scale):
        return Plan(problems=20, measure_problems=10, measure_tokens=(20, 40)) if scale == "smoke" else Plan()

    def policy(self, weights):
        return Policy(weights / "policy.json")

    def verifier(self, weights):
        return RewardModel(weights / "prm.json")

    def checker(self):
        return Sum()

    solver = checker

    def problems(self, split, n, seed):
        dice = random.Random(f"{split}/{seed}")
        numbers = [3 * number + STRIDE[split] for number in dice.sample(range(100_000), n)]
        return [f"sum to {random.Random(number).randint(1, 11)}, problem {number}" for number in numbers]

    def train_policy(self, data, start, out, *, method, seed, report, **settings):
        assert method == "sft"
        counts = {}
        rows = list(map(json.loads, data.read_text().splitlines()))
        for row in rows:
            missing = goal(row["prompt"])
            for left, text in zip(range(LENGTH, 0, -1), row["steps"], strict=True):
                counts.setdefault(key(missing, left), [0] * len(DIGITS))[int(text)] += 1
                missing -= int(text)
        old = table(start / "policy.json")
        for at, count in counts.items():
            old[at] = [
                (1 - self.rate) * before / sum(old[at]) + self.rate * n / sum(count)
                for before, n in zip(old[at], count, strict=True)
            ]
        (out / "policy.json").write_text(json.dumps(old))
        report(f"{len(rows)} solutions")
        return {"rows": len(rows)}

    def train_prm(self, data, start, out, *, objective, seed, report, **settings):
        assert objective == "regression"
        labels = {}
        rows = list(map(json.loads, data.read_text().splitlines()))
        for row in rows:
            missing, left = goal(row["prompt"]), LENGTH
            for text, label in zip(row["completions"], row["labels"], strict=True):
                missing, left = missing - int(text), left - 1
                if label is not None:
                    labels.setdefault(key(missing, left), []).append(label)
        old = table(start / "prm.json")
        for at, seen in labels.items():
            old[at] = (1 - self.rate) * old[at] + self.rate * sum(seen) / len(seen)
        (out / "prm.json").write_text(json.dumps(old))
        report(f"{len(rows)} solutions")
        return {"rows": len(rows)}
