"""One search: the tree, the calls in flight, and four transitions over them.

    backtrack   the strategy backs up what was scored, then is done, or selects what to expand
    generate    orders go to the policy; returns as soon as a call has finished, and adds what the policy proposed
    verify      hands over what was scored
    finalize    answer, confidence, ranking

There is no barrier: calls run in a pool that belongs to the run, a candidate is sent to the verifier the moment its
generation ends, and every pass of the loop takes one call that has finished. Both drivers (`driver`, `graph`) only
call the transitions in turn. What changes the tree stands in `history`.

A search can go on past its end, from other steps than it began with (`restart`): behind what the tools of a chosen
step have said (`act`), or what a person has written.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .aggregate import Ranking, answer_of
from .budget import Budget
from .calls import Models, Order, Scoring
from .errors import (
    ConfigurationError,
    LedgerError,
    ModelError,
    O1ReasonError,
    PolicyError,
    StrategyError,
    UnjudgedError,
    VerifierError,
)
from .history import Event, History, Record
from .ledger import Ledger
from .mdp import NOTHING, Expansion, Proposals, Score, State, Step, Usage
from .pool import Pool
from .protocols import Policy, Strategy, Verifier
from .receipt import Receipt
from .result import Result
from .tree import ROOT


def _paid(call: Order | Scoring, outcome: Any) -> Usage:
    """What a call cost that failed, was cancelled, or came too late to count."""
    if isinstance(outcome, Proposals):
        return outcome.usage
    if isinstance(outcome, Sequence):
        return sum((score.usage for score in outcome), NOTHING)
    assert call.receipt is not None
    return call.receipt.owed


class Search(History):
    """One run. Not thread-safe: it lives on the event loop that awaits its transitions.

    `steps` are taken as given: the search goes on from there. `budget` may be a function of how often the search has
    gone on (`widen`), `widened` times so far.
    """

    def __init__(
        self,
        question: str,
        policy: Policy,
        verifier: Verifier | None,
        strategy: Strategy,
        budget: Budget | Callable[[int], Budget],
        *,
        context: tuple[dict[str, Any], ...] = (),
        seed: int = 0,
        steps: Sequence[Step] = (),
        widened: int = 0,
        ledger: Ledger | None = None,
        on_event: Callable[[Event], None] | None = None,
        log: list[Record] | None = None,
    ) -> None:
        if not isinstance(question, str) or not question.strip():
            raise ConfigurationError("the question is empty")
        if not getattr(strategy, "uses_verifier", True):
            verifier = None
        super().__init__(
            question, policy, verifier, strategy, budget, context=context, seed=seed, steps=steps, widened=widened,
            on_event=on_event, log=log,
        )  # fmt: skip
        self.models = Models(
            policy, verifier, seed, ledger, lambda error: self._emit("failed", node=None, error=str(error))
        )
        self._scored: tuple[Scoring, Sequence[Score] | Exception] | None = None
        self._pool: Pool[Order | Scoring] = Pool(self.budget)

    # Transitions.

    def backtrack(self) -> bool:
        """Back up, then select. True: the search is over, and `finalize` comes next."""
        over = self._backtrack()
        if over and self.log is not None:
            self.log.append(["stop", self.stop])
        return over

    def _backtrack(self) -> bool:
        tree = self.tree
        if self.settled:
            return True
        if self.fresh:
            self._backup(self.fresh)
        if self.strategy.done(tree):
            self._answer = self.strategy.answer(tree)
            self.stop = self.stop or ("done" if self._answer is not None else "exhausted")
            return True
        if self._pool.expired:  # what has finished still counts; nothing more is started
            self.stop = "deadline"
            while self._pool.finished:
                self._take_in(*self._pool.finished.popleft())
            self._backup(self.fresh)
            return True
        room = 0 if self.stop else self._pool.free - len(self._queue) - len(self._to_score)
        if room > 0:
            for expansion in self.strategy.select(tree, room):
                if not self._place(expansion):
                    self.stop = "budget"
                    break
        if self._pool.busy or self._queue or self._to_score:
            return False
        self.stop = self.stop or "exhausted"
        return True

    async def generate(self) -> None:
        """Send what is outstanding, wait until a call has finished, take in what it brought if it was the policy's.

        One call a pass: the tree then depends on the order in which calls finish, and on nothing finer in time.
        """
        if self._to_score or self._queue:
            self._send()
        if not self._pool.finished:
            await self._pool.wait()
            if not self._pool.finished:
                return
        call, outcome = self._pool.finished.popleft()
        if isinstance(call, Scoring):
            self._scored = call, outcome
            return
        self._take_in(call, outcome)
        if self._to_score or self._queue:
            self._send()

    async def verify(self) -> None:
        """Take in what the verifier has scored, if it was its call that finished."""
        if self._scored is not None:
            (call, outcome), self._scored = self._scored, None
            self._take_in(call, outcome)

    def _take_in(self, call: Order | Scoring, outcome: Any) -> None:
        """What a finished call brought, or how it failed."""
        if isinstance(call, Order):
            if isinstance(outcome, Exception):
                self._fail(call, self._failure(outcome, PolicyError, "the policy"), _paid(call, outcome))
            else:
                self._grow(call, outcome)
        elif isinstance(outcome, UnjudgedError) and any(score is not None for score in outcome.scores):
            self._score(call, outcome.scores, str(outcome), _paid(call, outcome))
        elif isinstance(outcome, Exception):
            self._unscored(call, self._failure(outcome, VerifierError, "the verifier"), _paid(call, outcome))
        else:
            self._score(call, outcome)

    def finalize(self) -> Result:
        """The best answer so far. Raises the first failure if no call of the policy, or of the verifier, succeeded."""
        tree = self.tree
        node = self._answer if self._answer is not None else self.strategy.answer(tree)
        if node is not None and not (0 <= node < len(tree) and tree.nodes[node].terminal):
            raise StrategyError(f"{type(self.strategy).__name__}.answer gave {node}, which is no finished path")
        if node is None and self.error is not None and not all(self._worked.values()):
            raise self.error
        if self.log is not None:
            self.log.append(["end"])
        ranking = self._ranking()
        answer = None if node is None else answer_of(tree, node)
        result = Result(
            answer=answer,
            text="" if node is None else tree.state(node).text,
            confidence=None if node is None else ranking.confidence_of(tree, node),
            stop=self.stop or "budget",
            usage=self.meter.usage,
            policy_usage=self.meter.policy,
            verifier_usage=self.meter.verifier,
            tree=tree,
            node=node,
            ranking=tuple(entry for entry in ranking.answers if entry[0]),
        )
        if self.on_event:
            self._emit("finished", node=node, answer=answer, confidence=result.confidence, stop=result.stop)
        return result

    def _ranking(self) -> Ranking:
        return getattr(self.strategy, "ranking", Ranking)(self.tree)

    def candidates(self, n: int) -> list[tuple[int, float | None]]:
        """The `n` best nodes with their confidence: the one to be chosen, finished ones with other answers, and last,
        by their rewards, leaves that are not finished."""
        tree, ranking = self.tree, self._ranking()
        chosen = self._answer if self._answer is not None else self.strategy.answer(tree)
        first = () if chosen is None else (chosen,)
        told = {tree.nodes[i].key for i in first}
        finished = [*first, *(i for i in ranking.nodes if tree.nodes[i].key not in told)]
        leaves = [node for node in tree.nodes[1:] if node.open and not node.children]
        leaves.sort(key=lambda node: (-(node.reward or 0.0), -node.depth, node.id))
        found = [(i, ranking.confidence_of(tree, i)) for i in finished]
        return [*found, *((node.id, node.reward) for node in leaves[:n])][:n]

    # Going on past the end.

    @property
    def pending(self) -> State | None:
        """The state that was chosen, if its last step calls tools that have not run, and the policy can run them."""
        if self._answer is None or self.models.act is None:
            return None
        state = self.tree.state(self._answer)
        return state if state.steps[-1].pending else None

    async def act(self, refusal: str | None = None) -> None:
        """Run the tools that the chosen step calls, and go on from what they say. `refusal`: say that in their place.

        Raises ConfigurationError if nothing is `pending`.
        """
        state = self.pending
        if state is None or self.models.act is None:
            raise ConfigurationError("no tool is waiting to run")
        await self.close()
        step = await self.models.act(state, refusal)
        self.restart([*state.steps[:-1], replace(step, terminal=False, answer=None, key=None)])

    def restart(self, steps: Sequence[Step]) -> None:
        super().restart(steps)
        self._scored = None
        self._pool = Pool(self.budget, self._pool.deadline)

    def widen(self) -> None:
        super().widen()
        self._pool = Pool(self.budget)

    def cancel(self) -> None:
        """Cancel what is in flight."""
        self._pool.cancel()

    async def close(self) -> None:
        """Cancel what is in flight, wait until it is gone, and count what it cost, like what came too late."""
        await self._pool.close()
        late = dict(self._pool.finished)
        self._pool.finished.clear()
        for role, calls in (("policy", self._orders), ("verifier", self._scorings)):
            for call in calls.values():
                if call.receipt is not None:
                    self.meter.spend(role, _paid(call, late.get(call)))
                    call.receipt = None

    # Orders and budget.

    def _place(self, expansion: Expansion) -> bool:
        """Turn an expansion into orders that the budget allows. False: it allows less than was asked for."""
        tree = self.tree
        if not 0 <= expansion.node < len(tree) or expansion.n < 1 or expansion.max_steps < 1:
            raise StrategyError(f"{type(self.strategy).__name__} selected {expansion}, which is impossible")
        node = tree.nodes[expansion.node]
        if not node.open:
            raise StrategyError(f"{type(self.strategy).__name__} selected node {node.id}, which is finished or dead")
        if self.on_event and tree.last is not None and node.parent != tree.last and node.id != tree.last:
            self._emit("backtracked", node=node.id, **{"from": tree.last})
        left = expansion.n
        most = self.budget.max_nodes
        if most is not None:
            left = min(left, most - self.earlier - (len(tree) - 1) - sum(order.n for order in self._orders.values()))
        per_call = getattr(self.models.policy, "samples_per_call", None) or left
        asked = left == expansion.n
        while left > 0:
            want = min(left, per_call)
            order = Order(self._ordered, node.id, want, expansion.max_steps, expansion.temperature, node.drawn)
            if self.meter.limited:
                bare = not tree.terminals  # as long as no path is finished, generation may take what scoring would need
                quote = self._prices.affordable(tree.state(node.id), want, expansion.max_steps, bare)
                order.n, order.bound, order.score_bound = quote
                if order.n == 0:
                    return False
                self.meter.reserve(order.bound)
                self.meter.reserve(order.score_bound)
            self._order(order)
            asked = asked and order.n == want
            left -= order.n
        return asked

    # Calls.

    def _send(self) -> None:
        """Start what is outstanding while slots are free, scores first."""
        if self._pool.expired:
            return
        while self._to_score and self._pool.free > 0:
            call = self._to_score.popleft()
            states = self._states(call.ids)
            if self.meter.limited and call.bound is NOTHING:
                call.bound = self._prices.bound("verifier", states[0], len(states), 1)
                if not self.meter.set_aside(call.bound):
                    call.bound = NOTHING
                    self._unaffordable(call)
                    continue
            self._start(call, self.models.score, call, states)
        while self._queue and self._pool.free > 0:
            order = self._queue.popleft()
            self._start(order, self.models.propose, order, self.tree.state(order.node))

    def _start(self, call: Order | Scoring, work: Callable[..., Any], *arguments: Any) -> None:
        call.receipt = Receipt(call.bound.calls, lambda n: self._extend(call, n))
        self._pool.start(call, work, *arguments)
        call.receipt.deadline = self._pool.deadline

    def _extend(self, call: Order | Scoring, n: int) -> bool:
        """Set `n` more calls aside for one that is under way."""
        more = Usage(calls=n)
        if not self.meter.set_aside(more):
            return False
        call.bound += more
        return True

    def _states(self, ids: Sequence[int]) -> list[State]:
        """The states at `ids`; siblings share the walk to the root."""
        tree, states = self.tree, []
        for i in ids:
            node = tree.nodes[i]
            assert node.step is not None
            states.append(tree.state(node.parent or ROOT) + node.step)
        return states

    def _failure(self, error: Exception, kind: type[O1ReasonError], who: str) -> str:
        """What to record of a failed call. A call that can never work ends the search."""
        if isinstance(error, ConfigurationError | LedgerError):
            raise error
        if isinstance(error, ModelError):
            wrapped = kind(str(error))
            wrapped.__cause__ = error
            error = wrapped
        elif not isinstance(error, O1ReasonError):
            wrapped = kind(f"{who} failed: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        self.error = self.error or error
        return str(error)
