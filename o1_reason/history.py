"""Everything that changes the tree, live and on replay: each change is a method that also writes it to the log.

Replaying a log gives the same tree: that is how an interrupted run is resumed.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .budget import Budget, Meter
from .calls import Order, Scoring
from .errors import ConfigurationError, PolicyError, VerifierError
from .ledger import proposals_data, proposals_from, scores_data, scores_from
from .mdp import NOTHING, Proposals, Score, Step, Usage
from .prices import Prices
from .protocols import Policy, Strategy, Verifier
from .tree import ROOT, Node, Tree, step_data, step_from

Event = dict[str, Any]
Record = list[Any]


class History:
    """The tree of one search, what is outstanding for it, what it has cost, and the log of how it came about."""

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
        on_event: Callable[[Event], None] | None = None,
        log: list[Record] | None = None,
    ) -> None:
        if steps and steps[-1].terminal:
            raise ConfigurationError("nothing can follow a finished step; begin from an earlier one")
        self.limits = budget if callable(budget) else lambda widened: budget
        self.widened = widened  # times that the search went on within another budget
        self.strategy, self.budget, self.verifier = strategy, self.limits(widened), verifier
        self.tree = Tree(question, context, seed, steps)
        self.meter = Meter(self.budget)
        self.asked: Any = None  # what the search was asked for, by whoever resumes it
        self.earlier = 0  # nodes of trees before this one
        self.settled = False  # a person has chosen the answer
        self.stop = ""
        self.error: Exception | None = None  # the first failure
        self.fresh: list[int] = []  # scored or found dead, not yet backed up
        self.log = log  # what has happened since it was last taken, if anybody reads it
        self.on_event = on_event
        self._answer: int | None = None  # known once the strategy is done, or a person has chosen
        self._max_depth = getattr(strategy, "max_depth", None)
        self._orders: dict[int, Order] = {}  # outstanding
        self._ordered = 0
        self._queue: deque[Order] = deque()  # outstanding and not yet sent
        self._scorings: dict[int, Scoring] = {}  # outstanding, by their first node
        self._to_score: deque[Scoring] = deque()  # outstanding and not yet sent
        self._prices = Prices(policy, verifier, self.meter)
        self._worked = {"policy": False, "verifier": verifier is None}

    @property
    def start(self) -> Record:
        """The log's first record: what the search begins with, and what it had cost by then."""
        tree = self.tree
        return ["start", {
            "question": tree.question, "context": list(tree.context), "seed": tree.seed,
            "steps": [step_data(step) for step in tree.prefix],
            "policy": self.meter.policy.to_data(), "verifier": self.meter.verifier.to_data(),
            "nodes": self.earlier, "widened": self.widened, "asked": self.asked,
        }]  # fmt: skip

    def take_up(self, start: dict[str, Any]) -> None:
        """What an earlier run with the first record `start` was asked for, and had spent by then."""
        self.asked, self.earlier = start["asked"], start["nodes"]
        self.meter.spend("policy", Usage(**start["policy"]))
        self.meter.spend("verifier", Usage(**start["verifier"]))

    def restart(self, steps: Sequence[Step]) -> None:
        """Begin a new tree behind `steps`, at the cost of what was spent so far. Nothing may be in flight."""
        tree = self.tree
        self.earlier += len(tree) - 1
        self.tree = Tree(tree.question, tree.context, tree.seed, steps)
        self.stop, self.settled, self.fresh, self._answer = "", False, [], None
        self._orders, self._scorings = {}, {}
        self._queue.clear()
        self._to_score.clear()
        self.meter.forget_reserved()
        if self.log is not None:
            self.log.append(self.start)
        self._emit("restarted", steps=[step.text for step in steps])

    def widen(self) -> None:
        """Go on after a stop, within the next budget."""
        self.widened += 1
        self.budget, self.stop = self.limits(self.widened), ""
        self.meter.widen(self.budget)
        if self.log is not None:
            self.log.append(["widened"])

    def choose(self, node: int) -> None:
        """End with the finished path to `node`."""
        self._answer, self.stop, self.settled = node, "done", True
        if self.log is not None:
            self.log.append(["choose", node])

    def finish(self, step: Step) -> None:
        """End with `step`, a finished one, as somebody else than the policy has written it."""
        if self.log is not None:
            self.log.append(["finish", step_data(step)])
        node, new = self.tree.add(ROOT, step)
        if new and self.on_event:
            self._created(node)
        self._answer, self.stop, self.settled = node.id, "done", True

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
                if most is not None and self.earlier + len(tree) > most and tree.find(node.id, step) is None:
                    break
                node, new = tree.add(node.id, step, passing=index > 0)
                if new and self.on_event:
                    self._created(node)
            if new or (node is not at and node.reward is None and not node.waiting and not node.dead):
                ends[node.id] = node
        tree.returned(at, order.n)
        if self._max_depth is not None:
            for node in ends.values():
                if len(tree.prefix) + node.depth >= self._max_depth and not node.terminal:
                    tree.kill(node, "maximum depth")
        if not at.children and not at.pending:
            tree.kill(at, "no proposals")
        if ends and self.verifier is not None:
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

    def _settle(self, order: Order) -> None:
        self.meter.reserve(order.bound, -1)
        del self._orders[order.id]

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
                self._answer = self.strategy.answer(self.tree) if self.stop == "done" else None
            elif kind == "widened":
                self.widen()
            elif kind == "choose":
                self.choose(record[0])
            elif kind == "finish":
                self.finish(step_from(record[0]))
            elif kind == "backup":
                self._backup(list(record[0]))
        self.log, self.on_event = mine, events
        self._queue = deque(self._orders.values())
        self._to_score = deque(self._scorings.values())

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
