"""One search: the tree, the calls in flight, and four transitions over them.

    backtrack   the strategy backs up what was scored, then is done, or selects what to expand
    generate    orders go to the policy; returns as soon as any call has finished
    verify      hands over what was scored
    finalize    answer, confidence, ranking

There is no barrier: calls run in a pool that belongs to the run, a candidate is sent to the verifier the moment its
generation ends, and every pass of the loop takes what has finished. Both drivers (`driver`, `graph`) only call the
transitions in turn. All that changes the tree goes through the few methods that also write the log, so replaying a
log gives the same tree: that is how an interrupted run is resumed.
"""

import asyncio
import hashlib
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from .aggregate import Ranking, answer_of
from .budget import Budget, Meter
from .errors import ConfigurationError, LedgerError, O1ReasonError, PolicyError, StrategyError, VerifierError
from .ledger import Ledger, identity_of, key_of, proposals_data, proposals_from, scores_data, scores_from
from .mdp import Expansion, Proposals, Score, State, Usage
from .protocols import Policy, Strategy, Verifier, check_proposals, check_scores
from .tree import ROOT, Node, Tree

Event = dict[str, Any]
Record = list[Any]
NOTHING = Usage()


@dataclass(frozen=True)
class Result:
    """What a search found, and what it cost."""

    answer: str | None  # final answer, as the chosen path states it
    text: str  # the chosen reasoning, whole
    confidence: float | None  # in [0, 1]: the verifier's score of the answer, or its share of the vote
    stop: str  # "done" | "budget" | "deadline" | "exhausted"
    usage: Usage
    policy_usage: Usage
    verifier_usage: Usage
    tree: Tree
    node: int | None  # the chosen leaf
    ranking: tuple[tuple[str, float], ...]  # distinct answers, best first


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
        self.policy, self.verifier, self.strategy, self.budget = policy, verifier, strategy, budget
        self.seed, self.ledger = seed, ledger
        self.tree = Tree(question, context, seed)
        self.meter = Meter(budget)
        self.stop = ""
        self.error: Exception | None = None  # the first failure
        self.fresh: list[int] = []  # scored or found dead, not yet backed up
        self.log = log  # what has happened since it was last taken, if anybody reads it
        self.on_event = on_event
        self._takes_seed = "seed" in inspect.signature(policy.propose).parameters
        self._max_depth = getattr(strategy, "max_depth", None)
        self._identities = ("", "")
        if ledger is not None:
            self._identities = identity_of(policy, "policy"), identity_of(verifier, "verifier") if verifier else ""
        self._orders: dict[int, Order] = {}  # outstanding
        self._ordered = 0
        self._queue: deque[Order] = deque()  # outstanding and not yet sent
        self._to_score: deque[tuple[list[int], Usage]] = deque()
        self._running: dict[asyncio.Task[None], float] = {}  # start times, oldest first
        self._generated: deque[tuple[Order, Proposals | Exception]] = deque()
        self._scored: deque[tuple[list[int], Usage, Sequence[Score] | Exception]] = deque()
        self._dearest = {"policy": (1, 0.0, 0.0), "verifier": (1, 0.0, 0.0)}  # calls, tokens, dollars of a sample
        self._ready: asyncio.Event | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._expired = False

    # Transitions.

    def backtrack(self) -> bool:
        """Back up, then select. True: the search is over, and `finalize` comes next."""
        tree = self.tree
        if self.fresh:
            self._backup(self.fresh)
        if self.strategy.done(tree):
            self.stop = "done" if self.strategy.answer(tree) is not None else "exhausted"
            return True
        if self._expired:
            self.stop = "deadline"
            return True
        room = self.budget.concurrency - len(self._running) - len(self._queue) - len(self._to_score)
        if room > 0 and not self.stop:
            for expansion in self.strategy.select(tree, room):
                if not self._place(expansion):
                    self.stop = "budget"
                    break
        if self._running or self._queue or self._to_score or self._generated or self._scored:
            return False
        self.stop = self.stop or "exhausted"
        return True

    async def generate(self) -> None:
        """Send what is outstanding, wait until some call has finished, take in what the policy brought."""
        self._send()
        while self._running and not (self._generated or self._scored or self._expired):
            if self._ready is None:
                self._start_clock()
            assert self._ready is not None
            self._ready.clear()
            await self._ready.wait()
        while self._generated:
            order, outcome = self._generated.popleft()
            if isinstance(outcome, Exception):
                self._fail(order, self._failure(outcome, PolicyError))
            else:
                self._grow(order, outcome)
        self._send()

    async def verify(self) -> None:
        """Take in what the verifier has scored."""
        while self._scored:
            ids, bound, outcome = self._scored.popleft()
            self.meter.reserve(bound, -1)
            if isinstance(outcome, Exception):
                self._unscored(ids, self._failure(outcome, VerifierError))
            else:
                self._score(ids, outcome)

    def finalize(self) -> Result:
        """The best answer so far. Raises the first failure if nothing at all succeeded."""
        tree = self.tree
        node = self.strategy.answer(tree)
        if node is not None and not (0 <= node < len(tree) and tree.nodes[node].terminal):
            raise StrategyError(f"{type(self.strategy).__name__}.answer gave {node}, which is no finished path")
        if node is None and self.error is not None and all(n.dead for n in tree.nodes[1:]):
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

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel what is in flight."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        return running

    async def close(self) -> None:
        """Cancel what is in flight and wait until it is gone."""
        running = self.cancel()
        if running:
            await asyncio.wait(running, timeout=5.0)  # a plug-in that swallows its cancellation must not hang us

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
        self.meter.policy += proposals.usage
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
        for node in ends.values():
            if self._max_depth is not None and node.depth >= self._max_depth and not node.terminal:
                tree.kill(node, "maximum depth")
        if not at.children:
            tree.kill(at, "no proposals")
            self.fresh.append(at.id)
        if self.verifier is None:
            self.fresh.extend(ends)
            self.meter.reserve(order.score_bound, -1)
        elif ends:
            for node in ends.values():
                node.waiting = True
            tree.unscored += len(ends)
            self._to_score.append((list(ends), order.score_bound))
        else:
            self.meter.reserve(order.score_bound, -1)

    def _fail(self, order: Order, why: str) -> None:
        """A call that failed is a dead end, unless its node has other children."""
        tree = self.tree
        at = tree.nodes[order.node]
        if self.log is not None:
            self.log.append(["fail", order.id, why])
        self._settle(order)
        self.meter.reserve(order.score_bound, -1)
        tree.returned(at, order.n)
        if not at.children and not at.pending:
            tree.kill(at, why)
            self.fresh.append(at.id)
        if self.on_event:
            self._emit("failed", node=at.id, error=why)

    def _score(self, ids: list[int], scores: Sequence[Score]) -> None:
        tree = self.tree
        if self.log is not None:
            self.log.append(["score", ids, scores_data(scores)])
        usage = self.meter.verifier
        for i, score in zip(ids, scores, strict=True):
            node = tree.nodes[i]
            node.waiting = False
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
        self.meter.verifier = usage
        tree.unscored -= len(ids)
        self.fresh.extend(ids)

    def _unscored(self, ids: list[int], why: str) -> None:
        """Candidates whose verifier call failed are dead ends."""
        if self.log is not None:
            self.log.append(["unscored", ids, why])
        for i in ids:
            node = self.tree.nodes[i]
            node.waiting = False
            self.tree.kill(node, why)
            if self.on_event:
                self._emit("failed", node=i, error=why)
        self.tree.unscored -= len(ids)
        self.fresh.extend(ids)

    def _unaffordable(self, ids: list[int]) -> None:
        """No budget is left to score these; they count without a score."""
        if self.log is not None:
            self.log.append(["unaffordable", ids])
        for i in ids:
            self.tree.nodes[i].waiting = False
        self.tree.unscored -= len(ids)
        self.fresh.extend(ids)
        self.stop = "budget"

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
                self._fail(self._orders[record[0]], record[1])
                self.error = self.error or PolicyError(record[1])
            elif kind == "score":
                self._score(list(record[0]), scores_from(record[1]))
            elif kind == "unscored":
                self._unscored(list(record[0]), record[1])
                self.error = self.error or VerifierError(record[1])
            elif kind == "unaffordable":
                self._unaffordable(list(record[0]))
            else:
                self._backup(list(record[0]))
        self.log, self.on_event = mine, events
        self._queue = deque(self._orders.values())
        waiting = [(ids, NOTHING) for ids, _ in self._to_score]
        self._to_score = deque(([i], n) for ids, n in waiting for i in ids if self.tree.nodes[i].waiting)
        self.meter.reserve(NOTHING)

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
            self._emit("backtracked", node=node.id, frm=tree.last)
        left = expansion.n
        most = self.budget.max_nodes
        if most is not None:
            left = min(left, most - (len(tree) - 1) - sum(order.n for order in self._orders.values()))
        per_call = getattr(self.policy, "samples_per_call", None) or left
        asked = left == expansion.n
        while left > 0:
            n, price, score_price = self._affordable(node, min(left, per_call), expansion.max_steps)
            if n == 0:
                return False
            self.meter.reserve(price)
            self.meter.reserve(score_price)
            order = Order(self._ordered, node.id, n, expansion.max_steps, expansion.temperature, node.drawn)
            order.bound, order.score_bound = price, score_price
            self._order(order)
            asked = asked and n == min(left, per_call)
            left -= n
        return asked

    def _affordable(self, node: Node, n: int, max_steps: int) -> tuple[int, Usage, Usage]:
        """The most samples that may be ordered, and what to set aside for them and for their scores.

        As long as there is no finished path at all, generation may take what scoring would need.
        """
        if not self.meter.limited:
            return n, NOTHING, NOTHING
        state = self.tree.state(node.id)
        for k in range(n, 0, -1):
            price = self._bound(self.policy, "policy", state, k, max_steps)
            scoring = self._bound(self.verifier, "verifier", state, k, max_steps) if self.verifier else NOTHING
            if self.meter.fits(price + scoring):
                return k, price, scoring
        if not self.tree.terminals and self.verifier is not None:
            for k in range(n, 0, -1):
                price = self._bound(self.policy, "policy", state, k, max_steps)
                if self.meter.fits(price):
                    return k, price, NOTHING
        return 0, NOTHING, NOTHING

    def _bound(self, plug_in: object, role: str, state: State, n: int, max_steps: int) -> Usage:
        bound = getattr(plug_in, "bound", None)
        if bound is not None:
            return bound(state, n, max_steps)
        calls, tokens, dollars = self._dearest[role]
        return Usage(calls, round(tokens * n), 0, dollars * n)

    def _spent(self, role: str, usage: Usage, n: int) -> None:
        calls, tokens, dollars = self._dearest[role]
        per = max(n, 1)
        self._dearest[role] = (
            max(calls, usage.calls),
            max(tokens, usage.tokens / per),
            max(dollars, (usage.cost_usd or 0.0) / per),
        )

    def _settle(self, order: Order) -> None:
        self.meter.reserve(order.bound, -1)
        del self._orders[order.id]

    # The pool.

    def _send(self) -> None:
        """Start what is outstanding while slots are free, scores first."""
        free = self.budget.concurrency - len(self._running)
        while free > 0 and self._to_score:
            ids, bound = self._to_score.popleft()
            states = self._states(ids)
            if bound is NOTHING:
                node = self.tree.nodes[ids[0]]
                bound = self._bound(self.verifier, "verifier", states[0], len(ids), 1) if node.step else NOTHING
                if not self.meter.fits(bound):
                    self._unaffordable(ids)
                    continue
                self.meter.reserve(bound)
            self._start(self._call_verifier(ids, bound, states))
            free -= 1
        while free > 0 and self._queue:
            order = self._queue.popleft()
            self._start(self._call_policy(order, self.tree.state(order.node)))
            free -= 1

    def _states(self, ids: Sequence[int]) -> list[State]:
        """The states at `ids`; siblings share the walk to the root."""
        known: dict[int, State] = {}
        states: list[State] = []
        for i in ids:
            node = self.tree.nodes[i]
            parent = node.parent or ROOT
            if parent not in known:
                known[parent] = self.tree.state(parent)
            assert node.step is not None
            states.append(known[parent] + node.step)
        return states

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        if self._ready is None:
            self._start_clock()
        task = loop.create_task(call)
        self._running[task] = loop.time()
        if self.budget.call_seconds is not None and "call" not in self._timers:
            self._timers["call"] = loop.call_later(self.budget.call_seconds, self._overdue)

    def _start_clock(self) -> None:
        self._ready = asyncio.Event()
        if self.budget.max_seconds is not None:
            loop = asyncio.get_running_loop()
            self._timers["deadline"] = loop.call_later(self.budget.max_seconds, self._expire)

    def _expire(self) -> None:
        self._expired = True
        if self._ready is not None:
            self._ready.set()

    def _overdue(self) -> None:
        """Cancel calls that have run longer than `call_seconds`; they count as failed."""
        loop, limit = asyncio.get_running_loop(), self.budget.call_seconds
        del self._timers["call"]
        if limit is None:
            return
        now = loop.time()
        for task, started in self._running.items():
            if now - started >= limit * 0.999:
                task.cancel("overdue")
            else:
                self._timers["call"] = loop.call_later(limit - (now - started), self._overdue)
                break

    async def _call_policy(self, order: Order, state: State) -> None:
        outcome: Proposals | Exception
        try:
            if self.ledger is None:
                outcome = await self._propose(order, state)
            else:
                outcome = await self._ledgered_propose(order, state, self.ledger)
            self._spent("policy", outcome.usage, order.n)
        except asyncio.CancelledError as cancelled:
            if cancelled.args != ("overdue",):
                raise
            outcome = PolicyError(f"the policy did not answer within {self.budget.call_seconds} seconds")
        except Exception as error:
            outcome = error
        finally:
            self._running.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
        self._generated.append((order, outcome))
        self._ready.set()  # type: ignore[union-attr]

    async def _propose(self, order: Order, state: State) -> Proposals:
        options: dict[str, Any] = {"temperature": order.temperature}
        if self._takes_seed:
            options["seed"] = call_seed(self.seed, state, order.first)
        proposals = await self.policy.propose(state, order.n, order.max_steps, **options)
        return check_proposals(proposals, order.n, order.max_steps)

    async def _ledgered_propose(self, order: Order, state: State, ledger: Ledger) -> Proposals:
        key = key_of(
            self._identities[0], "propose", state, n=order.n, max_steps=order.max_steps,
            temperature=order.temperature, first=order.first, seed=self.seed,
        )  # fmt: skip
        known = await ledger.get(key)
        if known is not None:
            return proposals_from(known)
        proposals = await self._propose(order, state)
        await self._keep(ledger, key, proposals_data(proposals))
        return proposals

    async def _call_verifier(self, ids: list[int], bound: Usage, states: list[State]) -> None:
        outcome: Sequence[Score] | Exception
        assert self.verifier is not None
        try:
            if self.ledger is None:
                outcome = check_scores(await self.verifier.score(states), states)
            else:
                outcome = await self._ledgered_score(states, self.verifier, self.ledger)
            if self.meter.limited:
                total = NOTHING
                for score in outcome:
                    total += score.usage
                self._spent("verifier", total, len(states))
        except asyncio.CancelledError as cancelled:
            if cancelled.args != ("overdue",):
                raise
            outcome = VerifierError(f"the verifier did not answer within {self.budget.call_seconds} seconds")
        except Exception as error:
            outcome = error
        finally:
            self._running.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
        self._scored.append((ids, bound, outcome))
        self._ready.set()  # type: ignore[union-attr]

    async def _ledgered_score(self, states: list[State], verifier: Verifier, ledger: Ledger) -> list[Score]:
        keys = [key_of(self._identities[1], "score", state) for state in states]
        known = [await ledger.get(key) for key in keys]
        missing = [i for i, record in enumerate(known) if record is None]
        scores: list[Score | None] = [None if r is None else scores_from([r])[0] for r in known]
        if missing:
            asked = [states[i] for i in missing]
            for i, score in zip(missing, check_scores(await verifier.score(asked), asked), strict=True):
                scores[i] = score
                await self._keep(ledger, keys[i], scores_data([score])[0])
        return [score for score in scores if score is not None]

    async def _keep(self, ledger: Ledger, key: str, record: dict[str, Any]) -> None:
        """A full disk must not lose an answer that was paid for: the search goes on and says so."""
        try:
            await ledger.put(key, record)
        except LedgerError as error:
            if self.on_event:
                self._emit("failed", node=None, error=str(error))

    def _failure(self, error: Exception, kind: type[O1ReasonError]) -> str:
        """What to record of a failed call. A call that can never work ends the search."""
        if isinstance(error, ConfigurationError | LedgerError):
            raise error
        if not isinstance(error, O1ReasonError):
            wrapped = kind(f"{type(error).__name__}: {error}")
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


def call_seed(seed: int, state: State, first: int) -> int:
    """63 bits from the search's seed, the state's text and the index of the first sample."""
    text = "\x1f".join([str(seed), str(first), state.question, *(step.text for step in state.steps)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
