"""A verifier that reads its rewards off the steps, and solutions for it: what an audit is tested with."""

import asyncio

from o1_reason import Budget, ConfigurationError, Score, State, Step, Usage
from o1_reason.audit import Solution, Truth
from o1_reason.errors import ModelError, UnjudgedError
from o1_reason.receipt import charge

FREE = Budget(concurrency=4)


class Reader:
    """Reads its rewards off the steps: "0.3" is worth 0.3. `whole`: only the last one's. Words name a failure."""

    identity = "reader"

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        self.calls: list[list[str]] = []
        self.flying = self.most = 0

    async def score(self, states):
        self.calls.append([state.text for state in states])
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(0)
            return self.read(states)
        finally:
            self.flying -= 1

    def read(self, states):
        texts = [[step.text for step in state.steps] for state in states]
        for words in texts:
            if "down" in words:
                charge(Usage(2, 5))
                raise ModelError("the endpoint is down")
            if "broken" in words:
                raise ZeroDivisionError
            if "key" in words:
                raise ConfigurationError("the key is wrong")
        used = [Usage(1, 10, 2, 0.01) if i == 0 else Usage() for i in range(len(texts))]
        rewards = [None if "?" in words else tuple(map(float, words[-1:] if self.whole else words)) for words in texts]
        scores = [r if r is None else Score(r, usage=u) for r, u in zip(rewards, used, strict=True)]
        if None in scores:
            raise UnjudgedError("cannot read '?'", scores)
        return scores


def solutions(*rows, separator=" "):
    """From rows (group, steps, right, key, labels); the last two may be missing."""
    found = []
    for line, (group, words, right, *more) in enumerate(rows, 1):
        key, labels = (*more, None, ())[:2] if len(more) < 2 else more
        steps = [Step(word) for word in words.split(separator)]
        steps[-1] = Step(steps[-1].text, terminal=True, answer=key)
        state = State(f"q{group}", tuple(steps))
        found.append(Solution(state, Truth(line, str(group), key, key, None, right, tuple(labels or ()))))
    return found


def questions(n, *rows):
    """The same rows (steps, right, key) for each of n questions."""
    return solutions(*((group, *row) for group in range(n) for row in rows))


GOOD = [("1 0.9", True, "a"), ("1 0.2", False, "b"), ("1 0.3", False, "b"), ("1 0.1", False, "c")]
BAD = [("1 0.9", False, "b"), ("1 0.2", True, "a"), ("1 0.3", True, "a"), ("1 0.1", True, "a")]
