"""A search as content blocks of a streamed message, while it goes on."""

import json
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from .engine import Event
from .messages import PROVIDER

Block = dict[str, Any]


class Telling:
    """Reasoning blocks from a search's events.

    Every node is a block. It begins when the node is created, with the step as text, and gains the verifier's score;
    `extras` has the same for programs: ``event`` "created", ``node``, ``parent``, ``depth``, ``terminal``, then
    ``reward``. To go back to a node, or a call that failed, is a block of its own: ``event`` "backtracked" with
    ``node`` and ``from``, or "failed" with ``node`` (None: no particular one) and ``error``. "restarted": nodes are
    numbered anew, behind steps that are fixed now. Texts end with a line
    break. Blocks have an ``index``, so that chunks merge.
    """

    def __init__(self) -> None:
        self.blocks = 0  # so far
        self._places: dict[int, int] = {}  # node -> index of its block

    def block(self, event: Event) -> Block | None:
        """What an event adds; None where it is nothing to tell."""
        node, told = event.get("node"), {name: event[name] for name in ("event", "node") if name in event}
        match event["event"]:
            case "created":
                self._places[event["node"]] = self.blocks
                told |= {name: event[name] for name in ("parent", "depth", "terminal")}
                return self._new(f"[{node}] {event['text']}\n", told)
            case "scored":
                text = f"[{node}] scored {event['reward']:.2f}\n"
                return _reasoning(text, self._places[event["node"]], {"node": node, "reward": event["reward"]})
            case "backtracked":
                return self._new(f"[{node}] back from [{event['from']}]\n", told | {"from": event["from"]})
            case "restarted":
                return self._new(f"on from: {event['steps'][-1] if event['steps'] else 'the start'}\n", told)
            case "failed":
                where = "" if node is None else f"[{node}] "
                return self._new(f"{where}failed: {event['error']}\n", told | {"error": event["error"]})
        return None

    def _new(self, text: str, extras: dict[str, Any]) -> Block:
        self.blocks += 1
        return _reasoning(text, self.blocks - 1, extras)


def _reasoning(text: str, index: int, extras: dict[str, Any]) -> Block:
    return {"type": "reasoning", "reasoning": text, "index": index, "extras": extras}


def piece(block: Block) -> AIMessageChunk:
    """A block as a chunk of the message."""
    return AIMessageChunk(
        content=[block], response_metadata={"output_version": "v1", "model_provider": PROVIDER}
    )  # fmt: skip


def last_piece(message: AIMessage, first: int) -> AIMessageChunk:
    """The whole of `message` as the last chunk; its blocks come after the `first` ones."""
    blocks: list[Any] = []
    calls: list[Any] = []
    for index, block in enumerate(message.content, first):
        assert isinstance(block, dict)
        if block["type"] == "tool_call":
            call = {"name": block["name"], "args": json.dumps(block["args"]), "id": block["id"], "index": index}
            calls.append(call)
            block = {"type": "tool_call_chunk", **call}
        blocks.append({**block, "index": index})
    return AIMessageChunk(
        content=blocks,
        tool_call_chunks=calls,
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
        chunk_position="last",
    )
