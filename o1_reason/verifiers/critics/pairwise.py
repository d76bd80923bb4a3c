"""A chat model that compares candidates two by two."""

from collections.abc import Sequence
from itertools import combinations

from ...chat import Chat
from ...errors import ConfigurationError
from ...mdp import NOTHING, Score, State, Usage
from ...together import together
from .compare import Choice, Comparing, Standing, order, rivals, settle
from .judge import Heard, Judge
from .score import Critic, mean

_BETTER = """\
Two candidates go on from the same beginning of a solution, or solve the problem from its start.
choice: the letter of the one that is more likely right, if it is finished, or more likely to lead to a right answer, \
if it is not; "tie" if neither is."""


class PairwiseCritic:
    """The share of comparisons that a state wins among the states of one call.

    reward(i) = mean over its opponents j of (x_ij + 1 - x_ji) / 2 (Copeland's score, as a share): x_ij is 1 if i,
    shown first, is chosen over j, 1/2 for "tie", else 0; with log-probabilities x_ij = P(i) + P(tie) / 2. A model that
    always chooses the first shown so gives everybody 1/2. A pair counts if both orders could be read.

    Up to `opponents` + 1 candidates meet each other; of more, each meets its `opponents` nearest on a shuffled ring,
    so that a call makes at most n * opponents comparisons. A lone state has nobody to be compared with: it is judged
    as by `Critic`.

    What the other parameters mean, and what is raised: see `Critic`.
    """

    def __init__(
        self,
        chat: Chat,
        *,
        opponents: int = 6,
        temperature: float | None = 0.0,
        instructions: str | None = None,
        reason: bool = True,
        max_tokens: int = 512,
        retries: int = 1,
        step_tokens: int = 256,
    ) -> None:
        if opponents < 2 or opponents % 2:
            raise ConfigurationError(f"opponents must be an even number from 2 on; got {opponents}")
        self.opponents = opponents
        judge = Judge(chat, temperature, max_tokens, retries, step_tokens)
        self._comparing = Comparing(judge, _BETTER, "tie", reason, instructions)
        self._alone = Critic(
            chat, temperature=temperature, instructions=instructions, reason=reason, max_tokens=max_tokens,
            retries=retries, step_tokens=step_tokens,
        )  # fmt: skip

    @property
    def parse_failures(self) -> int:
        """Replies so far that could not be read."""
        return self._comparing.judge.failures + self._alone.parse_failures

    @property
    def identity(self) -> str:
        return f"pairwise({self._comparing.identity}, {self.opponents} opponents, alone {self._alone.identity})"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """The most that scoring `n` continuations costs if every reply can be read."""
        if n < 2:
            return self._alone.bound(state, n, max_steps)
        judge = self._comparing.judge
        pair = judge.bound(self._comparing.prompt(judge.guess(state, 2, max_steps)), 3)
        return sum([pair] * (2 * len(pairs(n, self.opponents))), NOTHING)

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        bill: Heard[Choice] = Heard()
        sets = rivals(states)
        standings = await together(self._stand([states[same[0]] for same in rival], bill) for rival in sets)
        return settle(states, sets, standings, bill)

    async def _stand(self, states: Sequence[State], bill: Heard[Choice]) -> list[Standing]:
        if len(states) == 1:
            heard = await self._alone.ask(states[0])
            bill.failed += heard.failed
            bill.usage += heard.usage
            score = mean(Heard(heard.read))
            return [Standing(score.rewards[0], score.critique or "") if score else Standing(None)]
        ring = order(states, 0)
        met = [(ring[i], ring[j]) for i, j in pairs(len(states), self.opponents)]
        results = await together(self._compare(states[i], states[j], bill) for i, j in met)
        wins: list[list[float]] = [[] for _ in states]
        for (i, j), result in zip(met, results, strict=True):
            if result is not None:
                wins[i].append(result)
                wins[j].append(1.0 - result)
        return [
            Standing(sum(won) / len(won), f"won {sum(won):.2f} of {len(won)} comparisons") if won else Standing(None)
            for won in wins
        ]

    async def _compare(self, one: State, other: State, bill: Heard[Choice]) -> float | None:
        """How far `one` wins over `other`, in [0, 1]."""
        both = await together([self._comparing.ask([one, other]), self._comparing.ask([other, one])])
        for heard in both:
            bill.add(heard)
        if not all(heard.read for heard in both):
            return None
        first, second = (heard.read[0].chances for heard in both)
        return (_won(first) + 1.0 - _won(second)) / 2


def pairs(n: int, opponents: int) -> list[tuple[int, int]]:
    """Who meets whom: everybody, or else each the `opponents` nearest on a ring."""
    if n - 1 <= opponents:
        return [*combinations(range(n), 2)]
    return [(i, (i + step) % n) for step in range(1, opponents // 2 + 1) for i in range(n)]


def _won(chances: dict[str, float]) -> float:
    return chances.get("A", 0.0) + chances.get("tie", 0.0) / 2
