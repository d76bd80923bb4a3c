"""Programs that a model wrote, run where they can do no harm.

A program gets a process of its own, in Linux namespaces of its own: no network, no other process to be seen, a
read-only file system that holds Python and the system's libraries and nothing else, one empty folder to write to, a
clean environment, no inherited descriptor but its standard three, no privilege, another user's id; and limits on time,
memory, processes, output and files. bubblewrap builds this where it is installed, else `sandbox_launch` does. Before
the first program, one of ours looks around inside; where it finds the sandbox leaking, or the machine has none, nothing
is run at all. It is a boundary of the kernel, not of a virtual machine: as good as the kernel is.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, SubprocessStreamProtocol
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigurationError, VerifierError
from .limits import Limit

Mechanism = Literal["bubblewrap", "namespaces", "subprocess"]
FOLDER = "/box"  # the one that can be written to
USERS = range(61184, 65520)  # root hands a program one of these ids, so that its processes are counted apart
NOBODY = "65534"
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


class Guest:
    """A program that is running. What it does with its pipes is its own choice: trust nothing that comes out."""

    def __init__(self, pipes: "_Pipes", transport: asyncio.SubprocessTransport, ready: int) -> None:
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
                ended = "exit"
                if not await keep(self.stdout, out, limits.output):
                    ended = "output"
                    self.kill()
                status = await ending
        if not self.started():
            told = err[-500:].decode(errors="replace").strip()
            raise VerifierError(f"the sandbox did not start within {limits.seconds} seconds: {told or ended}")
        return Finished(ended, status, bytes(out), bytes(err))


class Sandbox:
    """Runs Python programs, this interpreter's version, at most `parallel` at once (None: one per processor).

    trust=True is for programs that you trust: a plain subprocess with the limits on time, memory, output and the size
    of each file. It can read and write what you can, reach the network, and leave processes behind.

    Where the machine has no sandbox, and `trust` is not set, everything raises ConfigurationError and runs nothing.
    """

    def __init__(self, limits: Limits | None = None, *, trust: bool = False, parallel: int | None = None) -> None:
        if parallel is not None and parallel < 1:
            raise ConfigurationError(f"parallel must be at least 1; got {parallel}")
        self.limits = limits or Limits()
        self.trust = trust
        self._slots = Limit(parallel or os.cpu_count() or 1)
        self._probing = Limit(1)
        self._found: Mechanism | ConfigurationError | None = None

    async def run(self, program: str, stdin: bytes = b"") -> Finished:
        """Run `program` with `stdin` until it ends or must be killed. Raises VerifierError if no sandbox came up."""
        async with self.start(program) as (guest,):
            return await guest.finish(stdin, self.limits)

    @asynccontextmanager
    async def start(self, *programs: str) -> AsyncIterator[list[Guest]]:
        """Run `programs`, which take turns and count as one, until the block ends; nothing of them outlives it.

        Time is the caller's to limit. Raises ConfigurationError where the machine has no sandbox.
        """
        mechanism = await self.mechanism()
        await self._slots.acquire()
        try:
            async with AsyncExitStack() as stack:
                yield [await stack.enter_async_context(self._launch(mechanism, program)) for program in programs]
        finally:
            self._slots.release()

    async def mechanism(self) -> Mechanism:
        """What contains the programs: "bubblewrap" or "namespaces", or with `trust` a mere "subprocess".

        Found by running a program in it that looks around; raises ConfigurationError if there is none. Done once.
        """
        await self._probing.acquire()
        try:
            if self._found is None:
                self._found = await self._find()
        finally:
            self._probing.release()
        if isinstance(self._found, ConfigurationError):
            raise self._found
        return self._found

    async def _find(self) -> Mechanism | ConfigurationError:
        faults: list[str] = []
        wanted: tuple[Mechanism, ...] = ("subprocess",) if self.trust else ("bubblewrap", "namespaces")
        for mechanism in wanted:
            fault = await self._fault(mechanism)
            if not fault:
                return mechanism
            faults.append(f"{mechanism}: {fault}")
        why = "; ".join(faults)
        if self.trust:
            return ConfigurationError(f"this machine cannot run Python programs under {self.limits} ({why})")
        return ConfigurationError(
            f"this machine has no sandbox for programs that a model wrote ({why}). Install bubblewrap (apt-get install "
            "bubblewrap) on a Linux that allows namespaces (in a container: with CAP_SYS_ADMIN), or, if you trust the "
            "programs with your files and your network, say Sandbox(trust=True)"
        )

    async def _fault(self, mechanism: Mechanism) -> str:
        """What is wrong with a mechanism on this machine; empty if a program inside finds nothing."""
        if mechanism != "subprocess" and sys.platform != "linux":
            return "needs Linux"
        if mechanism == "bubblewrap" and not shutil.which("bwrap"):
            return "not installed"
        with tempfile.NamedTemporaryFile() as outside:
            seen = json.dumps([outside.name, "/etc/passwd", *_visible()])
            try:
                async with self._launch(mechanism, f"{_LOOK}\nprint(look({seen}))") as guest:
                    finished = await guest.finish(b"", self.limits)
            except (OSError, VerifierError) as error:
                return str(error)
        if finished.status or finished.ended != "exit":
            return (finished.stderr[-500:].decode(errors="replace").strip() or finished.ended).replace("\n", " ")
        return "" if self.trust else finished.stdout.decode().strip()

    @asynccontextmanager
    async def _launch(self, mechanism: Mechanism, program: str) -> AsyncIterator[Guest]:
        loop = asyncio.get_running_loop()
        text = program.encode(errors="replace")
        folder = FOLDER if mechanism != "subprocess" else tempfile.mkdtemp(prefix="o1-reason-")
        ready, write = os.pipe()
        os.set_blocking(ready, False)
        try:
            command = _command(mechanism, self._order(mechanism, folder, len(text), write))
            try:
                transport, pipes = await loop.subprocess_exec(
                    lambda: _Pipes(loop),
                    *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, pass_fds=(write,), env={"LANG": "C.UTF-8"},
                    start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(write)
            guest = Guest(pipes, transport, ready)
            try:
                guest.stdin.write(text)
                yield guest
            finally:
                guest.kill()
                try:
                    await asyncio.shield(pipes.exited)
                finally:
                    transport.close()
        finally:
            os.close(ready)
            if mechanism == "subprocess":
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _order(self, mechanism: Mechanism, folder: str, length: int, ready: int) -> dict[str, Any]:
        """What `sandbox_launch` is told."""
        limits = {
            "RLIMIT_AS": self.limits.memory,
            "RLIMIT_CPU": self.limits.cpu_seconds,
            "RLIMIT_FSIZE": self.limits.files,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 64,
        }
        if mechanism != "subprocess":  # elsewhere it would count all processes of the user
            limits["RLIMIT_NPROC"] = self.limits.processes
        return {
            "enclose": mechanism == "namespaces",
            "filter": mechanism != "subprocess",
            "program": length,
            "ready": ready,
            "folder": folder,
            "files": self.limits.files,
            "visible": _visible(),
            "user": secrets.choice(USERS) if mechanism != "subprocess" and os.geteuid() == 0 else None,
            "limits": limits,
            "python": _python(),
            "environment": {
                "PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",
            },
        }  # fmt: skip


class _Pipes(SubprocessStreamProtocol):
    """A process's pipes as streams. `exited` is done when the process has ended, whoever still holds its pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=MIB, loop=loop)
        self.exited: asyncio.Future[None] = loop.create_future()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set_result(None)


async def keep(stream: asyncio.StreamReader, into: bytearray, most: int, drain: bool = False) -> bool:
    """Read a stream to its end, and keep its first `most` bytes. False as soon as there are more, unless to `drain`."""
    while piece := await stream.read(65536):
        fits = len(into) + len(piece) <= most
        into += piece[: most - len(into)]
        if not fits and not drain:
            return False
    return True


def _command(mechanism: Mechanism, order: dict[str, Any]) -> list[str]:
    launch = Path(__file__).with_name("sandbox_launch.py").read_text()
    python = [order["python"], "-I", "-S", "-c", launch, json.dumps(order)]
    if mechanism != "bubblewrap":
        return python
    apart = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"]
    if order["user"] is None:
        apart += ["--unshare-user", "--uid", NOBODY, "--gid", NOBODY]
    else:  # root needs no user namespace, only what it takes to become somebody else
        apart += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    for path in order["visible"]:
        for parent in reversed(Path(path).parents[:-1]):  # else they can be closed to all but root, as outside
            apart += ["--perms", "755", "--dir", str(parent)]
        apart += ["--ro-bind", path, path]
    for device in ("/dev/null", "/dev/urandom"):
        apart += ["--dev-bind", device, device]
    apart += ["--perms", "1777", "--size", str(order["files"]), "--tmpfs", order["folder"], "--remount-ro", "/"]
    return ["bwrap", *apart, "--", *python]


def _python() -> str:
    """The interpreter itself, not a virtual environment's name for it."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _visible() -> list[str]:
    """Folders that Python needs, to be seen by every program and changed by none."""
    base = os.path.realpath(sys.base_prefix)
    folders = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", os.path.dirname(_python())]
    return [path for path in dict.fromkeys([*folders, f"{base}/lib", f"{base}/lib64"]) if os.path.isdir(path)]


_LOOK = """
import os, socket

def look(outside):
    faults = [f"{path} can be read" for path in outside[:2] if os.path.exists(path)]
    for folder in ("/", "/dev", *outside[2:]):
        try:
            os.close(os.open(os.path.join(folder, "o1-reason"), os.O_CREAT | os.O_WRONLY))
            faults.append(f"{folder} can be written to")
        except OSError:
            pass
    faults += [f"there is a network: {name}" for _, name in socket.if_nameindex() if name != "lo"]
    if os.getpid() > 10:
        faults.append("other processes can be seen")
    try:
        os.setuid(0)
        faults.append("it has privileges")
    except OSError:
        pass
    return "; ".join(faults)
"""
