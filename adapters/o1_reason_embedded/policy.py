"""The embedded policy: a 0.9-million-parameter decoder that proposes steps of arithmetic puzzles."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from o1_reason.answers import canonical
from o1_reason.errors import ConfigurationError, PolicyError
from o1_reason.mdp import Proposals, State, Step, Usage

from . import vocab as v
from .puzzle import Puzzle, expression, parse, parse_step
from .runtime import Array, Cache, Decoder, Ids, compute, decoder

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class Prefix:
    """A state as the models see it."""

    puzzle: Puzzle
    ids: list[int]
    left: int  # numbers still to combine; 1: finished

    def tokens(self, max_steps: int) -> int:
        """Tokens of the next `max_steps` steps, or of as many as are left."""
        return sum(v.step_length(k) for k in range(self.left - 1, max(self.left - 1 - max_steps, 0), -1))


def prefix_of(state: State) -> Prefix:
    """Raises ConfigurationError for a question outside the domain, ValueError for a step outside the vocabulary."""
    puzzle = parse(state.question)
    ids = v.prompt_ids(puzzle.numbers, puzzle.target)
    for step in state.steps:
        ids += v.encode(step.text + "\n")
    return Prefix(puzzle, ids, max(1, len(puzzle.numbers) - len(state.steps)))


class EmbeddedPolicy:
    """Proposes steps such as ``4 + 6 = 10 (left: 5 10 10)``.

    Single steps are sampled without replacement, so that n candidates are n different ones (stochastic beam search,
    Kool et al. 2019, arXiv 1903.06059); whole solutions independently, so that they can vote. `temperature` 0 is
    greedy and gives one candidate. Malformed output, which is rare, is dropped: fewer than n come back.

    `min_p` in [0, 1] bars tokens less likely than `min_p` times the likeliest one (single steps only): a step that is
    asked for because nothing better is left is rarely a legal one.

    Calls of an object are repeatable in their order; within a search, each by itself (the engine passes `seed`).
    """

    def __init__(
        self, temperature: float = 1.0, min_p: float = 0.05, seed: int = 0, weights: Path | None = None
    ) -> None:
        if not (temperature >= 0 and 0 <= min_p <= 1):
            raise ConfigurationError(f"need temperature >= 0 and min_p in [0, 1]; got {temperature} and {min_p}")
        self.temperature = temperature
        self.min_p = min_p
        self.seed = seed
        self.weights = weights or WEIGHTS / "policy.safetensors"
        self._calls = 0

    @property
    def identity(self) -> str:
        return f"embedded-policy/{decoder(self.weights).digest}/T={self.temperature}/min_p={self.min_p}"

    def extract(self, state: State) -> str | None:
        """The answer, if the steps, whoever wrote them, end with a single number."""
        move = parse_step(state.steps[-1].text) if state.steps else None
        if move is None or len(move.left) != 1:
            return None
        return expression(parse(state.question).numbers, state.steps) or None

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """The most a call costs: single steps may turn out fewer than `n`."""
        prefix = prefix_of(state)
        return Usage(1, len(prefix.ids), n * prefix.tokens(max_steps))

    async def propose(
        self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None, seed: int | None = None
    ) -> Proposals:
        """Raises ConfigurationError for a question outside the domain, PolicyError for steps that are no trace."""
        if seed is None:
            seed = self.seed + self._calls
            self._calls += 1
        heat = self.temperature if temperature is None else temperature
        return await compute(self._propose, state, n, max_steps, heat, seed)

    def _propose(self, state: State, n: int, max_steps: int, temperature: float, seed: int) -> Proposals:
        try:
            prefix = prefix_of(state)
        except ValueError as error:
            if isinstance(error, PolicyError | KeyError) or not str(error).startswith("not in the vocabulary"):
                raise
            raise PolicyError(f"the embedded policy cannot go on from these steps: {error}") from error
        steps = min(max_steps, prefix.left - 1)
        tokens = prefix.tokens(steps)
        if not tokens or (state.steps and state.steps[-1].terminal):
            return Proposals((), Usage(calls=0))
        if temperature == 0:
            n = 1
        model = decoder(self.weights)
        cache = Cache(model.shape, 1, len(prefix.ids) + tokens)
        logits = model.logits(model.forward(np.array([prefix.ids]), cache)[:, -1])
        rng = np.random.default_rng(seed)
        if max_steps == 1 and n > 1:
            ids, logprobs, paid = distinct(model, logits, cache, n, tokens, temperature, self.min_p, rng)
        else:
            ids, logprobs = independent(model, logits, cache, n, tokens, temperature, rng)
            paid = n * tokens
        candidates = tuple(
            candidate
            for row, logprob in zip(ids, logprobs, strict=True)
            if (candidate := self._read(state, prefix, row, logprob))
        )
        return Proposals(candidates, Usage(1, len(prefix.ids), paid))

    def _read(self, state: State, prefix: Prefix, ids: Ids, logprobs: Array) -> tuple[Step, ...]:
        """Sampled tokens as steps; nothing if they are malformed."""
        found: list[Step] = []
        at = 0
        left = prefix.left
        while at < len(ids):
            length = v.step_length(left - 1)
            tokens = ids[at : at + length]
            if tokens[-1] != v.CLOSE or np.isin(tokens[:-1], (v.CLOSE, v.EOS, v.NEWLINE, v.PAD)).any():
                return ()
            left -= 1
            text = v.decode(tokens).rstrip("\n")
            logprob = float(logprobs[at : at + length].mean())
            step = Step(text, terminal=left == 1, logprob=logprob, tokens=length)
            if left == 1:
                answer = expression(prefix.puzzle.numbers, [*state.steps, *found, step])
                if not answer:
                    return ()
                step = Step(text, True, answer, logprob, length, canonical(answer))  # as written: all of them make 24
            found.append(step)
            at += length
        return tuple(found)


def log_softmax(logits: Array) -> Array:
    top = logits - logits.max(-1, keepdims=True)
    return top - np.log(np.exp(top).sum(-1, keepdims=True))


def independent(
    model: Decoder, logits: Array, cache: Cache, n: int, tokens: int, temperature: float, rng: np.random.Generator
) -> tuple[Ids, Array]:
    """`n` independent samples: token ids and their log-probabilities at temperature 1, each (n, tokens)."""
    cache = cache.take(np.zeros(n, np.int64))
    logits = np.repeat(logits, n, 0)
    ids = np.empty((n, tokens), np.int64)
    logprobs = np.empty((n, tokens), np.float32)
    rows = np.arange(n)
    for at in range(tokens):
        noisy = logits / temperature + rng.gumbel(size=logits.shape).astype(np.float32) if temperature else logits
        ids[:, at] = noisy.argmax(-1)
        logprobs[:, at] = log_softmax(logits)[rows, ids[:, at]]
        if at + 1 < tokens:
            logits = model.logits(model.forward(ids[:, at : at + 1], cache)[:, -1])
    return ids, logprobs


def distinct(
    model: Decoder, logits: Array, cache: Cache, n: int, tokens: int, temperature: float, min_p: float,
    rng: np.random.Generator,
) -> tuple[Ids, Array, int]:  # fmt: skip
    """Up to `n` samples without replacement by stochastic beam search, in the order in which they would be drawn.

    phi is the log-probability of a partial sequence, G its perturbation: Gumbel(phi), conditioned on the greatest
    child's G being the parent's (arXiv 1903.06059, algorithm 1 and appendix B.3). Also returns the tokens sampled,
    those of sequences that fell out of the beam included.
    """
    phi = np.zeros(1)
    g = np.zeros(1)
    ids = np.empty((1, 0), np.int64)
    logprobs = np.empty((1, 0), np.float32)
    paid = 0
    for at in range(tokens):
        plain = log_softmax(logits)
        row, token = np.nonzero(plain >= plain.max(1, keepdims=True) + np.log(max(min_p, 1e-30)))
        child_phi = phi[row] + log_softmax(logits / temperature)[row, token]
        child_g = child_phi + rng.gumbel(size=logits.shape)[row, token]
        top = np.full(len(phi), -np.inf)
        np.maximum.at(top, row, child_g)
        with np.errstate(divide="ignore"):
            shift = g[row] - child_g + np.log1p(-np.exp(child_g - top[row]))
        child_g = g[row] - np.maximum(0, shift) - np.log1p(np.exp(-np.abs(shift)))
        kept = np.argsort(-child_g, kind="stable")[:n]
        parent, token = row[kept], token[kept]
        phi, g = child_phi[kept], child_g[kept]
        ids = np.concatenate([ids[parent], token[:, None]], 1)
        logprobs = np.concatenate([logprobs[parent], plain[parent, token][:, None]], 1)
        paid += len(kept)
        if at + 1 < tokens:
            cache = cache.take(parent)
            logits = model.logits(model.forward(token[:, None], cache)[:, -1])
    return ids, logprobs, paid
