"""What a search shows of itself while it runs: the leading path, step by step, and where it turned back."""

from collections.abc import Iterable

from ..engine import Event
from ..result import Result

Place = tuple[int, float]  # depth, reward


class Story:
    """Text that grows at its end, told from a search's events.

    It follows the path that leads: the deepest node, of several the one the verifier likes best. When another path
    takes the lead, the story says how far it goes back. A path once left is taken up again only by a better node, so
    the story is short where the tree is large. It ends on the path that was chosen. `judged`: a node counts once it
    has a score; else as soon as it is there.
    """

    def __init__(self, judged: bool) -> None:
        self._judged = judged
        self._parents: dict[int, int | None] = {0: None}
        self._texts: dict[int, str] = {}
        self._depths: dict[int, int] = {0: 0}
        self._told: list[int] = [0]  # the path the story is on
        self._best: Place = (0, 0.0)

    def goes_on(self, events: Iterable[Event]) -> str:
        """What these events, which happened at one time, add to it."""
        leader: int | None = None
        for event in events:
            match event["event"]:
                case "created":
                    node = event["node"]
                    self._parents[node], self._texts[node] = event["parent"], event["text"]
                    self._depths[node] = event["depth"]
                    place = (0 if self._judged else event["depth"]), 0.0
                case "restarted":
                    self._parents, self._texts, self._depths = {0: None}, {}, {0: 0}
                    self._told, self._best, leader = [0], (0, 0.0), None
                    continue
                case "scored":
                    node = event["node"]
                    place = self._depths[node], event["reward"]
                case _:
                    continue
            if place > self._best:
                self._best, leader = place, node
        return "" if leader is None else self._tell(leader)

    def ends(self, result: Result) -> str:
        """What is left to tell once the answer is known."""
        return "" if result.node is None else self._tell(result.node)

    def _tell(self, node: int) -> str:
        path = self._path(node)
        shared = 0
        while shared < min(len(path), len(self._told)) and path[shared] == self._told[shared]:
            shared += 1
        lines: list[str] = []
        if shared < len(self._told):
            lines.append("\n↩ back to the start" if shared == 1 else f"\n↩ back to step {shared - 1}")
        lines += [self._texts[i] for i in path[shared:]]
        self._told = path
        return "".join(line + "\n" for line in lines)

    def _path(self, node: int) -> list[int]:
        path: list[int] = []
        at: int | None = node
        while at is not None:
            path.append(at)
            at = self._parents[at]
        return path[::-1]
