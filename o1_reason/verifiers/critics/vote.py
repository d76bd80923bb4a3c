"""A chat model that votes among candidates."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from ...chat import Chat
from ...errors import ConfigurationError
from ...mdp import NOTHING, Score, State, Usage
from ...together import together
from .compare import LABELS, Choice, Comparing, Standing, order, rivals, settle
from .judge import Heard, Judge

T = TypeVar("T")
_BEST = """\
Several candidates go on from the same beginning of a solution, or solve the problem from its start.
choice: the letter of the one that is most likely right, if it is finished, or most likely to lead to a right answer, \
if it is not; "none" if not one of them is."""


class VoteCritic:
    """The share of votes that a state gets among the states of one call (Tree of Thoughts, arXiv 2305.10601, section
    3, "vote across states").

    In each ballot the model is shown all candidates, in another order, and chooses one or "none", which the paper does
    not have: so a lone state, too, can lose, and rewards of bad candidates are near 0. There are at least `votes`
    ballots, and as many more as it takes for each candidate to stand in each place equally often; at temperature 0
    never two in the same order. Where a reply carries log-probabilities, the ballot counts as their distribution.

    More than `group` candidates vote in groups of nearly equal size, and the first of each group in a final. Then
    reward = (share in the group + share in the final) / 2, the latter 0 for those not in the final.

    What the other parameters mean, and what is raised: see `Critic`.
    """

    def __init__(
        self,
        chat: Chat,
        *,
        votes: int = 4,
        group: int = 8,
        temperature: float | None = 0.0,
        instructions: str | None = None,
        reason: bool = True,
        max_tokens: int = 512,
        retries: int = 1,
        step_tokens: int = 256,
    ) -> None:
        if votes < 1 or not 2 <= group <= len(LABELS):
            raise ConfigurationError(f"votes must be at least 1, group 2 to {len(LABELS)}; got {votes} and {group}")
        self.votes, self.group = votes, group
        judge = Judge(chat, temperature, max_tokens, retries, step_tokens)
        self._comparing = Comparing(judge, _BEST, "none", reason, instructions)

    @property
    def parse_failures(self) -> int:
        """Replies so far that could not be read."""
        return self._comparing.judge.failures

    @property
    def identity(self) -> str:
        return f"vote({self._comparing.identity}, {self.votes} votes, groups of {self.group})"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """The most that scoring `n` continuations costs if every reply can be read."""
        judge, total = self._comparing.judge, NOTHING
        for group in self._groups(judge.guess(state, n, max_steps)):
            ballot = judge.bound(self._comparing.prompt(group), len(group) + 1)
            total = sum([ballot] * self._ballots(len(group)), total)
        return total

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        bill: Heard[Choice] = Heard()
        sets = rivals(states)
        standings = await together(self._stand([states[same[0]] for same in rival], bill) for rival in sets)
        return settle(states, sets, standings, bill)

    async def _stand(self, states: Sequence[State], bill: Heard[Choice]) -> list[Standing]:
        chunks = split(states, self.group)
        if len(chunks) == 1:
            return await self._vote(states, bill)
        first = [standing for part in await together(self._vote(chunk, bill) for chunk in chunks) for standing in part]
        heads = [max(chunk, key=lambda i: first[i].reward or 0.0) for chunk in split(range(len(states)), self.group)]
        heads = [i for i in heads if first[i].reward]
        final = await self._stand([states[i] for i in heads], bill) if heads else []
        last = dict(zip(heads, final, strict=True))
        return [_of_two_rounds(standing, last.get(i)) for i, standing in enumerate(first)]

    async def _vote(self, states: Sequence[State], bill: Heard[Choice]) -> list[Standing]:
        orders = [order(states, ballot) for ballot in range(self._ballots(len(states)))]
        heard = await together(
            self._comparing.ask([states[i] for i in shown], ballot) for ballot, shown in enumerate(orders)
        )
        shares, critiques, read = [0.0] * len(states), [""] * len(states), 0
        for shown, ballot in zip(orders, heard, strict=True):
            bill.add(ballot)
            for choice in ballot.read:
                read += 1
                for label, i in zip(LABELS, shown, strict=False):
                    chance = choice.chances.get(label, 0.0)
                    shares[i] += chance
                    critiques[i] = critiques[i] or (choice.critique if chance > 0.5 else "")
        if not read:
            return [Standing(None) for _ in states]
        return [
            Standing(share / read, f"{share:.2f} of {read} votes among {len(states)}", critique)
            for share, critique in zip(shares, critiques, strict=True)
        ]

    def _ballots(self, n: int) -> int:
        whole = -(-self.votes // n) * n
        return min(whole, math.factorial(n)) if self._comparing.judge.temperature == 0 else whole

    def _groups(self, states: Sequence[State]) -> Iterator[Sequence[State]]:
        """All groups that vote, finals included."""
        chunks = split(states, self.group)
        yield from chunks
        if len(chunks) > 1:
            yield from self._groups([chunk[0] for chunk in chunks])


def split(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """As few parts of at most `most` as can be, of nearly equal size."""
    count = -(-len(items) // most)
    return [items[k * len(items) // count : (k + 1) * len(items) // count] for k in range(count)]


def _of_two_rounds(first: Standing, final: Standing | None) -> Standing:
    if first.reward is None or (final and final.reward is None):
        return Standing(None)
    if final is None or final.reward is None:
        return Standing(first.reward / 2, first.summary, first.critique)
    told = f"{first.summary}, in the final {final.summary}"
    return Standing((first.reward + final.reward) / 2, told, first.critique)
