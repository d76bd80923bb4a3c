"""A program in a sandbox, as seen from outside."""

import asyncio
import os
import signal
from asyncio.subprocess import SubprocessStreamProtocol
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigurationError, VerifierError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    seconds: float = 10.0  # wall clock, from its start to its end
    cpu_seconds: int = 10  # of each process
    memory: int = 512 * MIB  # bytes of address space, of each process
    processes: int = 8  # at once, threads and the sandbox's own one included
    output: int = MIB  # bytes of standard output; of standard error more is thrown away
    files: int = 16 * MIB  # bytes written to files, and kept

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be greater than 0; got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a program. `status` is its exit status, 128 + n where signal n ended it; None where it had to be
    killed because of `ended`: its time was over, or it wrote too much."""

    ended: Literal["exit", "time", "output"]
    status: int | None
    stdout: bytes
    stderr: bytes


class Pipes(SubprocessStreamProtocol):
    """A process's pipes as streams. `exited` is done when the process has ended, whoever still holds its pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, line: int) -> None:
        super().__init__(limit=line, loop=loop)
        self.exited: asyncio.Future[None] = loop.create_future()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set_result(None)


class Guest:
    """A program that is running. What it does with its pipes is its own choice: trust nothing that comes out."""

    def __init__(self, pipes: Pipes, transport: asyncio.SubprocessTransport, ready: int) -> None:
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        assert pipes.stderr is not None
        self.stdin, self.stdout, self.stderr = pipes.stdin, pipes.stdout, pipes.stderr
        self._exited, self._transport, self._ready = pipes.exited, transport, ready
        self._started = False

    def started(self) -> bool:
        """Whether the sandbox was built; whatever happens from then on is the program's doing."""
        with suppress(BlockingIOError):
            self._started = self._started or os.read(self._ready, 5) == b"ready"
        return self._started

    async def check(self, told: bytes | bytearray = b"") -> None:
        """Raises VerifierError if the sandbox was not built. `told`: its standard error, where that was read."""
        if not self.started():
            self.kill()
            told = told or await self.stderr.read(10_000)
            raise VerifierError(f"the sandbox did not start: {last_words(told) or 'no time'}")

    def kill(self) -> None:
        """End it, and all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._transport.get_pid(), signal.SIGKILL)

    async def end(self) -> int:
        """Wait until it has ended, and end what it leaves behind. Its exit status; 128 + n where signal n ended it."""
        await asyncio.shield(self._exited)
        self.kill()
        status = self._transport.get_returncode() or 0
        return status if status >= 0 else 128 - status

    async def feed(self, data: bytes) -> None:
        """Write `data` to its standard input and close that; it need not read it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.stdin.write(data)
            await self.stdin.drain()
            self.stdin.close()
            await self.stdin.wait_closed()

    async def finish(self, stdin: bytes, limits: Limits) -> Finished:
        """Let it run to its end, or until it has to be killed. Raises VerifierError if the sandbox never came up."""
        out, err = bytearray(), bytearray()
        ended, status = "time", None
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.seconds), asyncio.TaskGroup() as group:
                group.create_task(self.feed(stdin))
                group.create_task(keep(self.stderr, err, limits.output, drain=True))
                ending = group.create_task(self.end())
                if await keep(self.stdout, out, limits.output):
                    ended, status = "exit", await ending
                else:
                    ended = "output"
                    self.kill()
        await self.check(err)
        return Finished(ended, status, bytes(out), bytes(err))


async def keep(stream: asyncio.StreamReader, into: bytearray, most: int, drain: bool = False) -> bool:
    """Read a stream to its end, and keep its first `most` bytes. False as soon as there are more, unless to `drain`."""
    while piece := await stream.read(65536):
        fits = len(into) + len(piece) <= most
        into += piece[: most - len(into)]
        if not fits and not drain:
            return False
    return True


def last_words(stderr: bytes | bytearray) -> str:
    """The end of what a program wrote to its standard error, on one line."""
    return " ".join(stderr[-500:].decode(errors="replace").split())
