"""A search in the terminal, built from its events alone: a progress line while it runs, the tree at the end."""

import time
from typing import Any

from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.text import Text
from rich.tree import Tree as RichTree

from .engine import Event


class TreeView:
    """Feed it events (`event`), ask it for what to show (`progress`, `render`)."""

    def __init__(self) -> None:
        self._nodes: dict[int, dict[str, Any]] = {0: {"text": "question", "parent": None, "children": []}}
        self._best: dict[str, Any] | None = None
        self._scored = self._failed = self._jumps = 0
        self._started = time.monotonic()
        self._spinner = Spinner("dots")

    def event(self, event: Event) -> None:
        """Take in one event of the search."""
        match event["event"]:
            case "created":
                self._nodes[event["node"]] = {**event, "children": []}
                self._nodes[event["parent"]]["children"].append(event["node"])
            case "scored":
                node = self._nodes[event["node"]]
                node["reward"] = event["reward"]
                self._scored += 1
                if node.get("terminal") and (self._best is None or node["reward"] > self._best["reward"]):
                    self._best = node
            case "failed":
                self._failed += 1
                if event["node"] is not None:
                    self._nodes[event["node"]]["error"] = event["error"]
            case "backtracked":
                self._jumps += 1
            case "restarted":
                self._nodes = {0: {"text": " ".join(["question", *event["steps"]]), "parent": None, "children": []}}
                self._best = None

    def progress(self, whole: bool) -> RenderableType:
        """One line on where the search stands; with `whole`, the tree so far above it."""
        line = f"{len(self._nodes) - 1} nodes, {self._scored} scored, {self._jumps} backtracks"
        if self._failed:
            line += f", {self._failed} failed"
        if self._best is not None:
            line += f", best {self._best['reward']:.2f}: {self._best.get('answer') or self._best['text']}"
        line += f", {time.monotonic() - self._started:.1f} s"
        self._spinner.update(text=Text(line))
        return Group(self.render(None), self._spinner) if whole else self._spinner

    def render(self, chosen: int | None) -> RichTree:
        """The tree, scores beside the steps; once an answer is `chosen`, all that does not lead to it is dimmed."""
        path: set[int] = set()
        while chosen is not None:
            path.add(chosen)
            chosen = self._nodes[chosen]["parent"]
        root = RichTree(Text(self._nodes[0]["text"], style="bold"), guide_style="dim")
        stack = [(0, root)]
        while stack:
            parent, branch = stack.pop()
            stack.extend((i, branch.add(self._label(i, path))) for i in self._nodes[parent]["children"])
        return root

    def _label(self, i: int, path: set[int]) -> Text:
        node = self._nodes[i]
        reward = node.get("reward")
        pruned = bool(path) and i not in path
        label = Text(" ".join(node["text"].split()), style="dim" if pruned else "bold" if i in path else "")
        if reward is not None:
            colour = "green" if reward >= 0.7 else "yellow" if reward >= 0.3 else "red"
            label.append(f"  {reward:.2f}", style=f"dim {colour}" if pruned else colour)
        if node.get("error"):
            label.append(f"  failed: {node['error']}", style="red")
        if node.get("terminal"):
            label.append("  ✓ answer" if i in path else "  answer", style="bold green" if i in path else "dim")
        return label
