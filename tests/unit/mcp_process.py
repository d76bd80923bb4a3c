"""An MCP server on stdio, started by a test: `python mcp_process.py FILE`. FILE has the number of calls under way.

The question "wait" gets its first step at once and then nothing; any other one is answered 42.
"""

import asyncio
import sys
from pathlib import Path

from o1_reason import Budget, Proposals, Step, Usage
from o1_reason.mcp_server import run
from o1_reason.resolve import resolve_strategy
from o1_reason.serve.models import Model


class Waiting:
    """A policy that writes down what is under way; it also prints, which must not reach the protocol."""

    def __init__(self, file: Path) -> None:
        self.file, self.running = file, 0

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        sys.stdout.write("a line of a careless model\n")
        sys.stdout.flush()
        if state.question == "wait" and not state.steps:
            return Proposals(((Step("a first step", tokens=3),),), Usage(1, 5, 3))
        self._count(1)
        try:
            if state.question == "wait":
                await asyncio.Event().wait()
        finally:
            self._count(-1)
        return Proposals(((Step("= 42", True, "42", tokens=1),),), Usage(1, 5, 1))

    def _count(self, change: int) -> None:
        self.running += change
        self.file.write_text(str(self.running))


if __name__ == "__main__":
    run(Model("reasoner/test", Waiting(Path(sys.argv[1])), None, resolve_strategy("cot"), Budget(max_seconds=60)))
