"""What sampled solutions earn, step by step, and how it comes to their tokens: between TRL's GRPO and `advantages`."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..mdp import State, Step
from ..protocols import Verifier, check_scores
from ..segment import split_steps
from .advantages import Weights, advantages, spread
from .problems import Checker, Problem

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Judge:
    """Scores batches of solutions; `texts`, `process` and `outcomes` are those of the last one, in its order.

    `ends` are the tokens with which a solution comes to its end by itself; any other is cut off, and has no answer.
    """

    verifier: Verifier | None
    checker: Checker | None
    weights: Weights
    separator: str
    answer: Callable[[str], str | None]
    ends: frozenset[int] = frozenset()
    texts: list[list[str]] = field(default_factory=list)
    process: list[list[float]] = field(default_factory=list)
    outcomes: list[float] = field(default_factory=list)

    async def totals(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Any], **columns: Any
    ) -> list[float]:
        """TRL's reward function: judges the batch; returns one number for each solution, which TRL logs."""
        golds = columns.get("gold") or [None] * len(prompts)
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        self.texts = [split_steps(text, self.separator) or [""] for text in texts]
        states = [
            self._state(_question(prompt), steps, bool(ids) and ids[-1] in self.ends)
            for prompt, steps, ids in zip(prompts, self.texts, completion_ids, strict=True)
        ]
        self.process = await self._process(states)
        self.outcomes = [await self._outcome(state, gold) for state, gold in zip(states, golds, strict=True)]
        return [
            self.weights.process * math.fsum(steps) / len(steps)
            + self.weights.outcome * (0.0 if math.isnan(outcome) else outcome)
            for steps, outcome in zip(self.process, self.outcomes, strict=True)
        ]

    def _state(self, question: str, texts: Sequence[str], ended: bool) -> State:
        steps = [Step(text) for text in texts]
        if ended:
            steps[-1] = Step(texts[-1], True, self.answer(texts[-1]))
        return State(question, tuple(steps))

    async def _process(self, states: Sequence[State]) -> list[list[float]]:
        """The process rewards; an empty solution earns nothing."""
        rewards = [[0.0] * len(state.steps) for state in states]
        asked = {i: state for i, state in enumerate(states) if state.steps[0].text}
        if self.verifier is None or not asked:
            return rewards
        batch = list(asked.values())
        for i, score in zip(asked, check_scores(await self.verifier.score(batch), batch), strict=True):
            if len(score.rewards) != len(rewards[i]):
                raise ConfigurationError("step-level advantages need a score for each step; or weigh the process 0")
            rewards[i] = list(score.rewards)
        return rewards

    async def _outcome(self, state: State, gold: str | None) -> float:
        if self.checker is None:
            return math.nan
        (right,) = await self.checker.check(Problem(state.question, gold), [state])
        return math.nan if right is None else float(right)


def _question(prompt: Any) -> str:
    return (prompt if isinstance(prompt, str) else prompt[-1]["content"]).strip()


def token_advantages(judge: Judge, batch: dict[str, "Tensor"], group: int, tokenizer: Any) -> "Tensor":
    """The advantages (solutions, tokens) of the batch that was judged last; groups may span processes."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    process, outcomes = gather_object(judge.process), gather_object(judge.outcomes)
    found: list[list[float]] = []
    for at in range(0, len(process), group):
        found += advantages(process[at : at + group], outcomes[at : at + group], judge.weights)
    ids, mask = batch["completion_ids"], batch["completion_mask"].bool()
    first = PartialState().process_index * len(ids)

    def decode(tokens: Sequence[int]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=True)

    rows = [
        spread(steps, step_ends(texts, row[shown].tolist(), decode), len(row))
        for steps, texts, row, shown in zip(found[first : first + len(ids)], judge.texts, ids, mask, strict=True)
    ]
    return torch.tensor(rows, device=ids.device)


def step_ends(steps: Sequence[str], ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """How many of the tokens `ids` come up to the end of each of `steps`, which follow each other in their text.

    A step reaches to the beginning of the next: the separator belongs to it, and a token across the border, too.
    """
    text = decode(ids)
    ends: list[int] = []
    at = 0
    for i, step in enumerate(steps):
        at = text.index(step, at) + len(step)
        border = text.index(steps[i + 1], at) if i + 1 < len(steps) else len(text)
        place = range(len(ids) + 1)
        ends.append(bisect_left(place, border, lo=ends[-1] if ends else 0, key=lambda n: len(decode(ids[:n]))))
    return ends
