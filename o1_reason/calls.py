"""Calls of the policy and the verifier: seeded, checked against their contracts, answered from the ledger if known."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .answers import answer_keys, canonical
from .errors import LedgerError, UnjudgedError
from .ledger import Ledger, identity_of, key_of, proposals_data, proposals_from, scores_data, scores_from
from .mdp import NOTHING, Proposals, Score, State, Step, Usage
from .protocols import Policy, Verifier, check_proposals, check_scores
from .receipt import Receipt, current
from .tree import step_data, step_from

UNKNOWN = "It is not known whether this call was carried out: the program was stopped while it ran."


@dataclass(slots=True, eq=False)
class Order:
    """One call of the policy: `n` samples from `node`, of which the first is the node's sample number `first`."""

    id: int
    node: int
    n: int
    max_steps: int
    temperature: float | None
    first: int
    bound: Usage = NOTHING  # set aside for the call itself
    score_bound: Usage = NOTHING  # and for scoring what it brings
    receipt: Receipt | None = None  # once it was sent


@dataclass(slots=True, eq=False)
class Scoring:
    """One call of the verifier, for the nodes `ids` that an order from `node` brought; `bound` is set aside for it."""

    node: int
    ids: list[int]
    bound: Usage
    receipt: Receipt | None = None  # once it was sent


class Models:
    """A policy and a verifier as one search uses them."""

    def __init__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        seed: int,
        ledger: Ledger | None,
        warn: Callable[[LedgerError], None],
    ) -> None:
        """Raises ConfigurationError if a ledger is given to what has no identity."""
        self.policy, self.verifier, self.seed, self.ledger = policy, verifier, seed, ledger
        self._warn = warn
        self._takes_seed = "seed" in inspect.signature(policy.propose).parameters
        self.act = self._act if hasattr(policy, "act") else None
        if ledger is not None:
            self._policy_identity = identity_of(policy, "policy")
            self._verifier_identity = identity_of(verifier, "verifier") if verifier else ""

    async def propose(self, order: Order, state: State) -> Proposals:
        """Raises PolicyError for proposals that break the contract, and whatever the policy raises."""
        current.set(order.receipt)
        if self.ledger is None:
            return await self._propose(order, state)
        key = key_of(
            self._policy_identity, "propose", state, n=order.n, max_steps=order.max_steps,
            temperature=order.temperature, first=order.first, seed=self.seed,
        )  # fmt: skip
        known = await self.ledger.get(key)
        if known is not None:
            return proposals_from(known)
        proposals = await self._propose(order, state)
        await self._keep(key, proposals_data(proposals))
        return proposals

    async def _propose(self, order: Order, state: State) -> Proposals:
        options: dict[str, Any] = {"temperature": order.temperature}
        if self._takes_seed:
            options["seed"] = call_seed(self.seed, state, order.first)
        proposals = await self.policy.propose(state, order.n, order.max_steps, **options)
        return await _keyed(check_proposals(proposals, order.n, order.max_steps))

    async def _act(self, state: State, refusal: str | None) -> Step:
        """The last step of `state` with what its tools said, or `refusal` in their place.

        A tool that had begun when the program was killed does not run again: its effects may be there already.
        """
        policy: Any = self.policy
        if self.ledger is None or refusal is not None:
            return await policy.act(state, refusal)
        key = key_of(self._policy_identity, "act", state, calls=[call.id for call in state.steps[-1].calls])
        known = await self.ledger.get(key)
        if known is not None:
            return step_from(known["step"]) if "step" in known else await policy.act(state, UNKNOWN)
        await self.ledger.put(key, {"begun": True})
        step = await policy.act(state, None)
        await self._keep(key, {"step": step_data(step)})
        return step

    async def score(self, call: Scoring, states: Sequence[State]) -> Sequence[Score]:
        """Raises VerifierError for scores that break the contract, and whatever the verifier raises."""
        current.set(call.receipt)
        assert self.verifier is not None
        if self.ledger is None:
            return check_scores(await self.verifier.score(states), states)
        keys = [key_of(self._verifier_identity, "score", state) for state in states]
        known = [await self.ledger.get(key) for key in keys]
        scores = [None if record is None else scores_from([record])[0] for record in known]
        missing = [i for i, score in enumerate(scores) if score is None]
        if missing:
            asked = [states[i] for i in missing]
            try:
                found: Sequence[Score | None] = check_scores(await self.verifier.score(asked), asked)
                error = None
            except UnjudgedError as unjudged:
                found, error = unjudged.scores, unjudged
            for i, score in zip(missing, found, strict=True):
                scores[i] = score
                if score is not None:
                    await self._keep(keys[i], scores_data([score])[0])
            if error is not None:
                raise UnjudgedError(str(error), scores) from error
        return [score for score in scores if score is not None]

    async def _keep(self, key: str, record: dict[str, Any]) -> None:
        """A full disk must not lose an answer that was paid for: the search goes on, and says so."""
        assert self.ledger is not None
        try:
            await self.ledger.put(key, record)
        except LedgerError as error:
            self._warn(error)


async def _keyed(proposals: Proposals) -> Proposals:
    """With a key on each answer that is the same as another in more than form, so that a vote counts them as one."""
    unkeyed = [i for i, candidate in enumerate(proposals.candidates) if _unkeyed(candidate[-1])]
    if not unkeyed:
        return proposals
    candidates = list(proposals.candidates)
    answers = [candidates[i][-1].answer or "" for i in unkeyed]
    for i, answer, key in zip(unkeyed, answers, await answer_keys(answers), strict=True):
        if key != canonical(answer):  # which is what counts where there is no key
            *before, last = candidates[i]
            candidates[i] = (*before, replace(last, key=key))
    return replace(proposals, candidates=tuple(candidates))


def _unkeyed(step: Step) -> bool:
    answer = step.answer
    if answer is None or step.key is not None or not step.terminal:
        return False
    return not (answer.isdigit() and len(answer) < 20)  # a whole number is its own key


def call_seed(seed: int, state: State, first: int) -> int:
    """63 bits from the search's seed, the state's text and the index of the first sample."""
    text = "\x1f".join([str(seed), str(first), state.question, *(step.text for step in state.steps)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
