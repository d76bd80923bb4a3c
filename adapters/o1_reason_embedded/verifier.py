"""The embedded verifiers: a process reward model, and the exact rule check."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from o1_reason.errors import VerifierError
from o1_reason.mdp import Score, State, Usage

from . import vocab as v
from .policy import WEIGHTS, prefix_of
from .puzzle import parse, parse_step, solves
from .runtime import Cache, compute, decoder


class EmbeddedVerifier:
    """Process reward model: for each step, the probability that the policy finishes rightly from there.

    Trained on Monte-Carlo rollouts of the policy (Math-Shepherd, arXiv 2312.08935), without a solver.
    """

    def __init__(self, weights: Path | None = None) -> None:
        self.weights = weights or WEIGHTS / "prm.safetensors"

    @property
    def identity(self) -> str:
        return f"embedded-prm/{decoder(self.weights).digest}"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """Exactly what scoring `n` continuations costs: each is read once, whole."""
        prefix = prefix_of(state)
        return Usage(1, n * (len(prefix.ids) + prefix.tokens(max_steps)))

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises ConfigurationError for a question outside the domain, VerifierError for steps that are no trace."""
        return await compute(self._score, states)

    def _score(self, states: Sequence[State]) -> Sequence[Score]:
        model = decoder(self.weights)
        rows: list[list[int]] = []
        for state in states:
            try:
                rows.append(prefix_of(state).ids)
            except ValueError as error:
                if not str(error).startswith("not in the vocabulary"):
                    raise
                raise VerifierError(f"the embedded verifier cannot read this step: {error}") from error
        scores: list[Score | None] = [None] * len(states)
        for length in {len(row) for row in rows}:
            group = [i for i, row in enumerate(rows) if len(row) == length]
            if length > model.shape.context:
                raise VerifierError(f"{length} tokens exceed the embedded verifier's context of {model.shape.context}")
            ids = np.array([rows[i] for i in group])
            logits = model.logits(model.forward(ids, Cache(model.shape, len(group), length)))[..., 0]
            rewards = 1 / (1 + np.exp(-np.clip(logits, -40, 40)))
            for i, row, reward in zip(group, ids, rewards, strict=True):
                steps = reward[row == v.CLOSE]
                if len(steps) != len(states[i].steps):
                    raise VerifierError(f"cannot tell the steps apart in {states[i].text!r}")
                usage = Usage(1 if i == 0 else 0, length)
                scores[i] = Score(tuple(float(r) for r in steps) or (0.5,), usage=usage)
        return [score for score in scores if score is not None]


class RuleVerifier:
    """The rules of the puzzle, exactly: an outcome verifier, 1 or 0.

    A finished path is right if its answer is an expression that uses each number once and is worth the target. An
    unfinished one is right as long as its steps, where they are in the embedded policy's form, break no rule. Any
    policy whose answers are expressions can be checked with it.
    """

    identity = "embedded-rules"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        return Usage()

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises ConfigurationError for a question outside the domain."""
        return [self._judge(state) for state in states]

    def _judge(self, state: State) -> Score:
        puzzle = parse(state.question)
        last = state.steps[-1] if state.steps else None
        if last is not None and last.terminal:
            right = last.answer is not None and solves(puzzle, last.answer)
            return Score((float(right),), None if right else f"{last.answer} does not make {puzzle.target}")
        left: Sequence[int] = puzzle.numbers
        for step in state.steps:
            move = parse_step(step.text)
            if move is None:
                break
            if not move.legal(left):
                return Score((0.0,), f"{step.text!r} breaks the rules")
            left = move.left
        return Score((1.0,))
