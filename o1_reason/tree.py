"""The search tree: an arena of nodes, ids in order of creation, every operation flat in the size of the tree.

The engine alone adds nodes, scores them and marks expansions; a strategy's `backup` writes `visits` and `value`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .answers import canonical
from .mdp import State, Step, ToolCall

ROOT = 0


class Node:
    """One state of the search.

    id, parent, depth, children  place in the tree; the root is 0, its parent None
    step       the action that led here (None at the root)
    reward     the verifier's score of this step in [0, 1]; None while unscored
    visits     times backed up through here
    value      what was backed up, in [0, 1]; its meaning is the strategy's
    samples    how often this step was proposed here; equal siblings are one node
    drawn      samples ordered from here, those in flight included
    pending    samples in flight from here
    virtual    orders in the subtree whose samples are in flight or not yet scored (virtual loss)
    key        the step's key, or else the canonical answer, of a terminal node
    waiting    its score is outstanding
    dead       why nothing follows although the node is not terminal, or why it does not count; None: alive
    closed     no leaf below can be expanded any more
    critique   what the verifier wrote
    """

    __slots__ = (
        "children",
        "closed",
        "critique",
        "dead",
        "depth",
        "drawn",
        "id",
        "key",
        "parent",
        "pending",
        "reward",
        "samples",
        "step",
        "unfinished",
        "value",
        "virtual",
        "visits",
        "waiting",
    )

    def __init__(self, id: int, parent: int | None, depth: int, step: Step | None) -> None:
        self.id = id
        self.parent = parent
        self.depth = depth
        self.step = step
        self.reward: float | None = None
        self.visits = 0
        self.value = 0.0
        self.children: list[int] = []
        self.samples = 1
        self.drawn = 0
        self.pending = 0
        self.virtual = 0
        self.unfinished = 0  # children that are not closed
        self.waiting = False
        self.key: str | None = None
        self.dead: str | None = None
        self.closed = False
        self.critique: str | None = None

    @property
    def terminal(self) -> bool:
        return self.step is not None and self.step.terminal

    @property
    def open(self) -> bool:
        """More can be sampled from here."""
        return self.dead is None and not (self.step is not None and self.step.terminal)

    def __repr__(self) -> str:
        text = self.step.text if self.step else "(root)"
        return f"Node({self.id}, parent={self.parent}, reward={self.reward}, value={self.value:.3f}, {text[:40]!r})"


class Tree:
    """Question, nodes, and the indexes that keep strategies flat.

    levels       ids by depth, oldest first
    ends         ids of open nodes, the root apart, that were sampled more often than they were drawn from
    terminals    ids of terminal nodes, oldest first
    votes        samples per canonical answer
    finished     samples that reached a terminal node
    last         the node whose expansion was ordered last
    in_flight    expansions ordered and not yet returned
    unscored     nodes whose score is outstanding
    seed         of the search; strategies draw all their randomness from it
    prefix       steps before the root: what was reasoned before the search began
    """

    def __init__(
        self, question: str, context: tuple[dict[str, Any], ...] = (), seed: int = 0, prefix: Sequence[Step] = ()
    ) -> None:
        self.question = question
        self.context = context
        self.seed = seed
        self.prefix = tuple(prefix)
        root = Node(ROOT, None, 0, None)
        self.nodes = [root]
        self.levels = [[ROOT]]
        self.ends: dict[int, None] = {}
        self.terminals: list[int] = []
        self.votes: dict[str, int] = {}
        self.finished = 0
        self.last: int | None = None
        self.in_flight = 0
        self.unscored = 0
        self._states: dict[int, State] = {}
        self._by_text: dict[tuple[int, str, bool], int] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def path(self, i: int) -> list[int]:
        """Ids from the root to `i`, both included."""
        ids = [i]
        parent = self.nodes[i].parent
        while parent is not None:
            ids.append(parent)
            parent = self.nodes[parent].parent
        ids.reverse()
        return ids

    def steps(self, i: int) -> tuple[Step, ...]:
        """The steps that lead to `i`, oldest first, those before the root included."""
        found: list[Step] = []
        nodes = self.nodes
        node = nodes[i]
        while node.step is not None and node.parent is not None:
            found.append(node.step)
            node = nodes[node.parent]
        found.reverse()
        return (*self.prefix, *found)

    def state(self, i: int) -> State:
        """The decision process's state at node `i`."""
        known = self._states
        state = known.get(i)
        if state is None:
            node = self.nodes[i]
            above = None if node.parent is None or node.step is None else known.get(node.parent)
            if above is None or node.step is None:
                state = State(self.question, self.steps(i), self.context)
            else:
                state = above + node.step
            if len(known) == 64:  # the latest are those that will be asked for again
                del known[next(iter(known))]
            known[i] = state
        return state

    def rewards(self, i: int) -> list[float]:
        """The step rewards on the path to `i`, oldest first; unscored steps are left out."""
        found: list[float] = []
        nodes = self.nodes
        node = nodes[i]
        while node.parent is not None:
            if node.reward is not None:
                found.append(node.reward)
            node = nodes[node.parent]
        found.reverse()
        return found

    # What the engine does.

    def order(self, node: Node, n: int) -> None:
        """Mark `n` samples from `node` as in flight."""
        node.drawn += n
        node.pending += n
        self.in_flight += 1
        self.last = node.id
        if node.drawn >= node.samples:
            self.ends.pop(node.id, None)
        self._virtual(node, 1)

    def returned(self, node: Node, n: int) -> None:
        """`order`'s samples are back (or failed), and what they brought has been added."""
        node.pending -= n
        self.in_flight -= 1
        if not node.pending and not node.unfinished:
            self._close(node)

    def settled(self, node: Node) -> None:
        """What `order` brought is scored, too: no visit is outstanding any more."""
        self._virtual(node, -1)

    def _virtual(self, node: Node, change: int) -> None:
        while True:
            node.virtual += change
            if node.parent is None:
                return
            node = self.nodes[node.parent]

    def find(self, parent: int, step: Step) -> int | None:
        """The child of `parent` with the same text, if there is one."""
        return self._by_text.get((parent, step.text, step.terminal))

    def add(self, parent: int, step: Step, *, passing: bool = False) -> tuple[Node, bool]:
        """The child of `parent` for `step`, and whether it is new; an equal sibling gains a sample instead.

        `passing`: `parent` was itself just added, so this sample counts as drawn from it.
        """
        above = self.nodes[parent]
        if passing:
            above.drawn += 1
            if above.drawn >= above.samples:
                self.ends.pop(parent, None)
        self.finished += step.terminal
        place = parent, step.text, step.terminal
        known = self._by_text.get(place)
        if known is not None:
            node = self.nodes[known]
            node.samples += 1
            if node.key is not None:
                self.votes[node.key] += node.dead is None
            if node.open and node.samples > node.drawn:
                self.ends[node.id] = None
            return node, False
        node = Node(len(self.nodes), parent, above.depth + 1, step)
        self.nodes.append(node)
        self._by_text[place] = node.id
        above.children.append(node.id)
        if node.depth == len(self.levels):
            self.levels.append([])
        self.levels[node.depth].append(node.id)
        if step.terminal:
            node.closed = True
            self.terminals.append(node.id)
            if step.answer is not None:
                node.key = step.key or canonical(step.answer)
                self.votes[node.key] = self.votes.get(node.key, 0) + 1
            if passing and not above.unfinished and not above.pending:
                self._close(above)
        else:
            self.ends[node.id] = None
            above.unfinished += 1
            while above.closed and above.parent is not None:  # a closed node that was sampled again
                above.closed = False
                above = self.nodes[above.parent]
                above.unfinished += 1
            above.closed = False
        return node, True

    def kill(self, node: Node, why: str) -> None:
        """Make `node` a dead end."""
        if node.dead is None:
            node.dead = why
            self.ends.pop(node.id, None)
            if node.key is not None:
                self.votes[node.key] -= node.samples
            self._close(node)

    def _close(self, node: Node) -> None:
        while not node.closed:
            node.closed = True
            if node.parent is None:
                return
            node = self.nodes[node.parent]
            node.unfinished -= 1
            if node.unfinished or node.pending:
                return

    # Plain data.

    def to_data(self) -> dict[str, Any]:
        """Plain JSON types; `from_data` is the inverse."""
        return {
            "question": self.question,
            "context": list(self.context),
            "seed": self.seed,
            **({"prefix": [step_data(step) for step in self.prefix]} if self.prefix else {}),
            "last": self.last,
            "nodes": [_node_data(node) for node in self.nodes],
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Tree":
        """A tree equal to the one `to_data` was called on; samples that were in flight are as if never drawn."""
        prefix = [step_from(step) for step in data.get("prefix", ())]
        tree = cls(data["question"], tuple(data["context"]), data["seed"], prefix)
        tree.last = data["last"]
        for record in data["nodes"]:
            if record["parent"] is None:
                node = tree.nodes[ROOT]
            else:
                node, _ = tree.add(record["parent"], step_from(record["step"]))
                node.samples = record["samples"]
                tree.finished += (node.samples - 1) * node.terminal
                if node.key is not None:
                    tree.votes[node.key] += node.samples - 1
            node.reward, node.critique = record["reward"], record["critique"]
            node.visits, node.value, node.drawn = record["visits"], record["value"], record["drawn"]
            if node.drawn >= node.samples:
                tree.ends.pop(node.id, None)
        for node in reversed(tree.nodes):
            dead = data["nodes"][node.id]["dead"]
            if dead is not None:
                tree.kill(node, dead)
            elif node.drawn and not node.unfinished:
                tree._close(node)
        return tree

    # Pictures, drawn by `view`.

    def to_html(self, chosen: int | None = None) -> str:
        """A page to explore the tree in, complete in itself.

        `chosen` is the leaf of the best path, as `Result.node`; without it, the finished node with the best reward.
        """
        from .view import read, render

        return render(read(self.to_data(), chosen))

    def to_mermaid(self, chosen: int | None = None, limit: int = 100) -> str:
        """A Mermaid flowchart of the best path and the oldest nodes, `limit` in all."""
        from .view import flowchart, read

        return flowchart(read(self.to_data(), chosen), limit)

    def _repr_html_(self) -> str:
        from .view import frame

        return frame(self.to_html())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tree) and self.to_data() == other.to_data()

    __hash__ = None  # type: ignore[assignment]

    def walk(self, start: int = ROOT) -> Iterator[Node]:
        """Depth first, children oldest first, without recursion."""
        stack = [start]
        while stack:
            node = self.nodes[stack.pop()]
            yield node
            stack.extend(reversed(node.children))


def _node_data(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "parent": node.parent,
        "depth": node.depth,
        "step": None if node.step is None else step_data(node.step),
        "reward": node.reward,
        "visits": node.visits,
        "value": node.value,
        "children": list(node.children),
        "samples": node.samples,
        "drawn": node.drawn - node.pending,
        "dead": node.dead,
        "critique": node.critique,
    }


def step_data(step: Step) -> dict[str, Any]:
    """A step in plain JSON types; `step_from` is the inverse."""
    data: dict[str, Any] = {
        "text": step.text,
        "terminal": step.terminal,
        "answer": step.answer,
        "logprob": step.logprob,
        "tokens": step.tokens,
    }
    if step.key is not None:
        data["key"] = step.key
    if step.calls:
        data["calls"] = [
            {"name": call.name, "arguments": call.arguments, "id": call.id, "result": call.result}
            for call in step.calls
        ]
    return data


def step_from(data: Mapping[str, Any]) -> Step:
    """The step that `step_data` was called on."""
    return Step(**{**data, "calls": tuple(ToolCall(**call) for call in data.get("calls", ()))})


def best(ids: Iterable[int], key: Any) -> int | None:
    """The id with the greatest `key(id)`; of equals the first, so ties go to age. None for no ids."""
    chosen, top = None, None
    for i in ids:
        value = key(i)
        if top is None or value > top:
            chosen, top = i, value
    return chosen
