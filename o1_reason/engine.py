"""One search: the tree, the calls in flight, and four transitions over them.

    backtrack   the strategy backs up what was scored, then is done, or selects what to expand
    generate    orders go to the policy; returns as soon as a call has finished, and adds what the policy proposed
    verify      hands over what was scored
    finalize    answer, confidence, ranking

There is no barrier: calls run in a pool that belongs to the run, a candidate is sent to the verifier the moment its
generation ends, and every pass of the loop takes one call that has finished. Both drivers (`driver`, `graph`) only
call the transitions in turn. All that changes the tree goes through the few methods that also write the log, so
replaying a log gives the same tree: that is how an interrupted run is resumed.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .aggregate import Ranking, answer_of
from .budget import Budget, Meter
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
from .ledger import Ledger, proposals_data, proposals_from, scores_data, scores_from
from .mdp import NOTHING, Expansion, Proposals, Score, State, Usage
from .pool import Pool
from .prices import Prices
from .protocols import Policy, Strategy, Verifier
from .receipt import Receipt
from .result import Result
from .tree import ROOT, Node, Tree

Event = dict[str, Any]
Record = list[Any]


def _paid(call: Order | Scoring, outcome: Any) -> Usage:
    """What a call cost that failed, was cancelled, or came too late to count."""
    if isinstance(outcome, Proposals):
        return outcome.usage
    if isinstance(outcome, Sequence):
        return sum((score.usage for score in outcome), NOTHING)
    assert call.receipt is not None
    return call.receipt.owed


class Search:
    """One run. Not thread-safe: it lives on the event loop that awaits its transitions."""

    def __init__(
        self,
        question: str,
        policy: Policy,
        verifier: Verifier | None,
        strategy: Strategy,
        budget: Budget,
        *,
        context: tuple[dict[str, Any], ...] = (),
        seed: int = 0,
        ledger: Ledger | None = None,
        on_event: Callable[[Event], None] | None = None,
        log: list[Record] | None = None,
    ) -> None:
        if not isinstance(question, str) or not question.strip():
            raise ConfigurationError("the question is empty")
        if not getattr(strategy, "uses_verifier", True):
            verifier = None
        self.models = Models(
            policy, verifier, seed, ledger, lambda error: self._emit("failed", node=None, error=str(error))
        )
        self.strategy, self.budget = strategy, budget
        self.tree = Tree(question, context, seed)
        self.meter = Meter(budget)
        self.stop = ""
        self.error: Exception | None = None  # the first failure
        self.fresh: list[int] = []  # scored or found dead, not yet backed up
        self.log = log  # what has happened since it was last taken, if anybody reads it
        self.on_event = on_event
        self._answer: int | None = None  # known once the strategy is done
        self._max_depth = getattr(strategy, "max_depth", None)
        self._orders: dict[int, Order] = {}  # outstanding
        self._ordered = 0
        self._queue: deque[Order] = deque()  # outstanding and not yet sent
        self._scorings: dict[int, Scoring] = {}  # outstanding, by their first node
        self._to_score: deque[Scoring] = deque()  # outstanding and not yet sent
        self._scored: tuple[Scoring, Sequence[Score] | Exception] | None = None
        self._pool: Pool[Order | Scoring] = Pool(budget)
        self._prices = Prices(policy, verifier, self.meter)
        self._worked = {"policy": False, "verifier": verifier is None}

    # Transitions.

    def backtrack(self) -> bool:
        """Back up, then select. True: the search is over, and `finalize` comes next."""
        over = self._backtrack()
        if over and self.log is not None:
            self.log.append(["stop", self.stop])
        return over

    def _backtrack(self) -> bool:
        tree = self.tree
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
        ranker = getattr(self.strategy, "ranking", Ranking)
        ranking: Ranking = ranker(tree)
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
            ranking=ranking.answers,
        )
        if self.on_event:
            self._emit("finished", node=node, answer=answer, confidence=result.confidence, stop=result.stop)
        return result

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

    # Everything that changes the tree, live and on replay.

    def _backup(self, ids: list[int]) -> None:
        self.fresh = []
        self.strategy.backup(self.tree, ids)
        if self.log is not None:
            self.log.append(["backup", ids])

    def _order(self, order: Order) -> None:
        self.tree.order(self.tree.nodes[order.node], order.n)
        self._orders[order.id] = order
        self._ordered = order.id + 1
        self._queue.append(order)
        if self.log is not None:
            record = [order.node, order.n, order.max_steps, order.temperature, order.first]
            self.log.append(["order", order.id, *record])

    def _grow(self, order: Order, proposals: Proposals) -> None:
        """The nodes that an order brought; equal siblings are merged, the rest goes to the verifier."""
        tree = self.tree
        at = tree.nodes[order.node]
        if self.log is not None:
            self.log.append(["grow", order.id, proposals_data(proposals)])
        self._settle(order)
        self._worked["policy"] = True
        self.meter.spend("policy", proposals.usage)
        self._prices.remember("policy", proposals.usage, order.n)
        most = self.budget.max_nodes
        ends: dict[int, Node] = {}
        for candidate in proposals.candidates:
            node, new = at, False
            for index, step in enumerate(candidate):
                if most is not None and len(tree) > most and tree.find(node.id, step) is None:
                    break
                node, new = tree.add(node.id, step, passing=index > 0)
                if new and self.on_event:
                    self._created(node)
            if new or (node is not at and node.reward is None and not node.waiting and not node.dead):
                ends[node.id] = node
        tree.returned(at, order.n)
        if self._max_depth is not None:
            for node in ends.values():
                if node.depth >= self._max_depth and not node.terminal:
                    tree.kill(node, "maximum depth")
        if not at.children and not at.pending:
            tree.kill(at, "no proposals")
        if ends and self.models.verifier is not None:
            for node in ends.values():
                node.waiting = True
            tree.unscored += len(ends)
            call = Scoring(at.id, list(ends), order.score_bound)
            self._scorings[call.ids[0]] = call
            self._to_score.append(call)
        else:
            self.fresh.extend(ends or [at.id])
            self.meter.reserve(order.score_bound, -1)
            tree.settled(at)

    def _fail(self, order: Order, why: str, cost: Usage) -> None:
        """A call that failed is a dead end, unless its node has other children."""
        tree = self.tree
        at = tree.nodes[order.node]
        if self.log is not None:
            self.log.append(["fail", order.id, why, cost.to_data()])
        self._settle(order)
        self.meter.reserve(order.score_bound, -1)
        self.meter.spend("policy", cost)
        tree.returned(at, order.n)
        tree.settled(at)
        if not at.children and not at.pending:
            tree.kill(at, why)
        self.fresh.append(at.id)
        if self.on_event:
            self._emit("failed", node=at.id, error=why)

    def _score(self, call: Scoring, scores: Sequence[Score | None], why: str = "", cost: Usage | None = None) -> None:
        """A node without a score is a dead end, because of `why`; the call then cost `cost`."""
        tree, ids = self.tree, call.ids
        self._worked["verifier"] = True
        if self.log is not None:
            record = ["score", ids[0], [score and scores_data([score])[0] for score in scores]]
            self.log.append(record if cost is None else [*record, why, cost.to_data()])
        usage = NOTHING
        for i, score in zip(ids, scores, strict=True):
            node = tree.nodes[i]
            node.waiting = False
            if score is None:
                self._dead(node, why)
                continue
            node.critique = score.critique
            if score.usage is not NOTHING:
                usage += score.usage
            node.reward = float(score.rewards[-1])
            if len(score.rewards) > 1:  # steps of a longer candidate are scored along with its end
                above = node
                for reward in reversed(score.rewards[:-1]):
                    above = tree.nodes[above.parent or ROOT]
                    if above.reward is not None or above.waiting:
                        break
                    above.reward = float(reward)
            if self.on_event:
                self._emit("scored", node=i, reward=node.reward)
        usage = usage if cost is None else cost
        self.meter.spend("verifier", usage)
        self._prices.remember("verifier", usage, len(ids))
        self._over(call)

    def _unscored(self, call: Scoring, why: str, cost: Usage) -> None:
        """Candidates whose verifier call failed are dead ends."""
        if self.log is not None:
            self.log.append(["unscored", call.ids[0], why, cost.to_data()])
        self.meter.spend("verifier", cost)
        for i in call.ids:
            node = self.tree.nodes[i]
            node.waiting = False
            self._dead(node, why)
        self._over(call)

    def _dead(self, node: Node, why: str) -> None:
        self.tree.kill(node, why)
        if self.on_event:
            self._emit("failed", node=node.id, error=why)

    def _unaffordable(self, call: Scoring) -> None:
        """No budget is left to score these; they count without a score."""
        if self.log is not None:
            self.log.append(["unaffordable", call.ids[0]])
        for i in call.ids:
            self.tree.nodes[i].waiting = False
        self._over(call)
        self.stop = "budget"

    def _over(self, call: Scoring) -> None:
        self.meter.reserve(call.bound, -1)
        del self._scorings[call.ids[0]]
        self.tree.unscored -= len(call.ids)
        self.tree.settled(self.tree.nodes[call.node])
        self.fresh.extend(call.ids)

    def replay(self, log: Sequence[Record]) -> None:
        """Bring a new search to where the log ends; calls that were in flight are outstanding again."""
        mine, self.log = self.log, None
        events, self.on_event = self.on_event, None
        for kind, *record in log:
            if kind == "order":
                self._order(Order(*record))
            elif kind == "grow":
                self._grow(self._orders[record[0]], proposals_from(record[1]))
            elif kind == "fail":
                self._fail(self._orders[record[0]], record[1], Usage(**record[2]))
                self.error = self.error or PolicyError(record[1])
            elif kind == "score":
                scores = [data and scores_from([data])[0] for data in record[1]]
                self._score(self._scorings[record[0]], scores, *record[2:3], *(Usage(**data) for data in record[3:]))
            elif kind == "unscored":
                self._unscored(self._scorings[record[0]], record[1], Usage(**record[2]))
                self.error = self.error or VerifierError(record[1])
            elif kind == "unaffordable":
                self._unaffordable(self._scorings[record[0]])
            elif kind == "stop":
                self.stop = record[0]
            else:
                self._backup(list(record[0]))
        self.log, self.on_event = mine, events
        self._queue = deque(self._orders.values())
        self._to_score = deque(self._scorings.values())

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
            left = min(left, most - (len(tree) - 1) - sum(order.n for order in self._orders.values()))
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

    def _settle(self, order: Order) -> None:
        self.meter.reserve(order.bound, -1)
        del self._orders[order.id]

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

    # Events.

    def _emit(self, event: str, **data: Any) -> None:
        if self.on_event:
            self.on_event({"event": event, **data})

    def _created(self, node: Node) -> None:
        step = node.step
        assert step is not None
        self._emit(
            "created", node=node.id, parent=node.parent, depth=node.depth, text=step.text, terminal=step.terminal,
            answer=step.answer,
        )  # fmt: skip
