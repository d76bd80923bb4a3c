"""What a user may bring: a policy, a verifier, a strategy.

Beyond the protocols, some optional attributes are honoured:

* ``identity: str`` of a policy or verifier (model, endpoint, sampling parameters) lets its calls be ledgered.
* ``samples_per_call: int`` of a policy: the engine asks for at most so many samples in one call.
* ``bound(state, n, max_steps) -> Usage`` of a policy (n continuations) or verifier (scoring them): the most one
  call can cost; with it, budgets in tokens and dollars hold to the last token.
* a ``seed`` parameter of `propose`: an integer that depends on the search's seed, the state and the index of the
  first sample alone, so that a run repeats whatever order its calls finish in.
* ``extract(state) -> str | None`` of a policy: the answer that the last step of a state states, if it does; so that a
  step that a person has written can end a search.
* ``act(state, refusal) -> Step`` of a policy: runs the tools that the last step of a chosen state calls, and returns
  that step with what they said; with a `refusal`, the policy is told that in place of each result.
* of a strategy: ``max_depth: int`` (deeper nodes are dead ends), ``uses_verifier = False`` (nothing is scored),
  ``ranking(tree) -> Ranking`` (other than by the best path of each answer).
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Protocol, runtime_checkable

from .errors import PolicyError, VerifierError
from .mdp import Expansion, Proposals, Score, State, Step
from .tree import Tree


@runtime_checkable
class Policy(Protocol):
    """pi(a|s): proposes continuations of a state."""

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        """Up to `n` continuations, each 1 to `max_steps` steps; fewer, even none, is a dead end.

        `temperature` None is the policy's own setting, 0 is greedy.
        """
        ...


@runtime_checkable
class Verifier(Protocol):
    """r(s, a): scores states."""

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """One `Score` per state, in the same order."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A search algorithm: pure functions of the tree.

    Expansions in flight stand in the tree (`Node.pending`, `Node.virtual`, `Tree.in_flight`).
    """

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        """At most `room` new expansions of open nodes; none means "nothing until something returns"."""
        ...

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        """Fold `new` nodes into visits and values; write nothing else.

        They are the nodes just scored, just found dead, or whose expansion has just ended without a new child. A
        node can come more than once.
        """
        ...

    def done(self, tree: Tree) -> bool:
        """More compute could not change the answer, or nothing is left to expand."""
        ...

    def answer(self, tree: Tree) -> int | None:
        """The chosen terminal node, or None."""
        ...


def check_proposals(proposals: object, n: int, max_steps: int) -> Proposals:
    """`proposals`, if they honour the contract of `Policy.propose`; raises PolicyError otherwise."""
    if not isinstance(proposals, Proposals):
        raise PolicyError(f"propose must return Proposals; got {type(proposals).__name__}")
    if len(proposals.candidates) > n:
        raise PolicyError(f"asked for {n} candidates, got {len(proposals.candidates)}")
    for candidate in proposals.candidates:
        if not 1 <= len(candidate) <= max_steps:
            raise PolicyError(f"a candidate must have 1 to {max_steps} steps; got {len(candidate)}")
        last = candidate[-1]
        for step in candidate:
            if not isinstance(step, Step) or not isinstance(step.text, str) or not (step.text or step.terminal):
                raise PolicyError(f"a step must be a Step with text; got {step!r}")
            if step.terminal and step is not last:
                raise PolicyError(f"nothing may follow a terminal step; {step.text[:80]!r} is followed by another")
    return proposals


def check_scores(scores: Sequence[Score], states: Sequence[State]) -> Sequence[Score]:
    """`scores`, if they honour the contract of `Verifier.score`; raises VerifierError otherwise."""
    if len(scores) != len(states):
        raise VerifierError(f"asked for the scores of {len(states)} states, got {len(scores)}")
    for score, state in zip(scores, states, strict=True):
        if not isinstance(score, Score):
            raise VerifierError(f"score must return Score objects; got {type(score).__name__}")
        rewards = score.rewards
        if len(rewards) != 1 and len(rewards) != len(state.steps):
            raise VerifierError(
                f"a state of {len(state.steps)} steps needs one reward per step, or one in all; got {len(rewards)}"
            )
        for reward in rewards:
            if not (isinstance(reward, int | float | Real) and math.isfinite(reward) and 0 <= reward <= 1):
                raise VerifierError(f"a reward must be a number in [0, 1]; got {reward!r}")
    return scores
