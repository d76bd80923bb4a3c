"""A scripted chat model to test critics with, and what it takes to read their prompts."""

import asyncio
import re
from collections.abc import Callable, Sequence

from o1_reason.chat import Message, Reply, Sampling
from o1_reason.mdp import Usage
from o1_reason.receipt import charge

Said = str | Reply | Exception


class ScriptedChat:
    """Says what `script(messages, sampling)` says, once for each reply wanted. `asked` records every request."""

    identity = "scripted"

    def __init__(self, script: Callable[[Sequence[Message], Sampling], Said], delay: float = 0.0) -> None:
        self.script, self.delay = script, delay
        self.asked: list[tuple[list[Message], Sampling]] = []
        self.usage = Usage()
        self.running = self.most = 0

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling = Sampling(),
        prefix: str | None = None,
    ) -> tuple[list[Reply], Usage]:
        self.asked.append((list(messages), sampling))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.running -= 1
        replies: list[Reply] = []
        for _ in range(sampling.n):
            said = self.script(messages, sampling)
            if isinstance(said, Exception):
                raise said
            replies.append(Reply(said, tokens=len(said.split())) if isinstance(said, str) else said)
        read = sum(len(message["content"].encode()) for message in messages) // 4
        usage = Usage(1, read, sum(reply.tokens for reply in replies))
        self.usage += usage
        charge(usage)
        return replies, usage

    async def continues(self) -> bool:
        return False

    def bound(self, messages: Sequence[Message], sampling: Sampling, prefix: str | None = None) -> Usage:
        read = sum(len(message["content"].encode()) for message in messages) // 4
        return Usage(1, read, sampling.n * (sampling.max_tokens or 0))


def in_turn(*said: Said) -> Callable[[Sequence[Message], Sampling], Said]:
    """A script that says one after the other, and the last of them ever after."""
    left = list(said)
    return lambda messages, sampling: left.pop(0) if len(left) > 1 else left[0]


def blocks(messages: Sequence[Message]) -> dict[str, str]:
    """The quoted texts of a prompt by label, read by their BEGIN and END lines alone."""
    found: dict[str, str] = {}
    for begin in re.finditer(r"^BEGIN (.*) \[(\w{16})\]\n", messages[-1]["content"], re.MULTILINE):
        end = messages[-1]["content"].index(f"\nEND {begin[1]} [{begin[2]}]\n", begin.end() - 1)
        lines = messages[-1]["content"][begin.end() : end].split("\n")
        found[begin[1]] = "\n".join(line.removeprefix("| ") for line in lines)
    return found


def sum_holds(text: str) -> bool:
    """Whether every "a + b = c" in `text` is true."""
    return all(int(a) + int(b) == int(c) for a, b, c in re.findall(r"(\d+) \+ (\d+) = (\d+)", text))
