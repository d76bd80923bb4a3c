"""The sandbox: what contains programs on this machine, and running them in it."""

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..errors import ConfigurationError, VerifierError
from ..limits import Limit
from .guest import Finished, Guest, Limits, Pipes, last_words

Mechanism = Literal["bubblewrap", "namespaces", "subprocess"]
FOLDER = "/box"  # the one that can be written to
USERS = range(61184, 65520)  # root hands a program one of these ids, so that its processes are counted apart
NOBODY = "65534"
T = TypeVar("T")


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
        if sys.platform != "linux" and (mechanism != "subprocess" or sys.platform == "win32"):
            return "needs Linux"
        if mechanism == "bubblewrap" and not shutil.which("bwrap"):
            return "not installed"
        with tempfile.NamedTemporaryFile() as outside:
            seen = json.dumps([outside.name, "/etc/passwd", *_visible()])
            program = "" if mechanism == "subprocess" else f"{_text('look')}\nprint(look({seen}))"
            try:
                async with self._launch(mechanism, program) as guest:
                    finished = await guest.finish(b"", self.limits)
            except (OSError, VerifierError) as error:
                return str(error)
        if finished.status or finished.ended != "exit":
            return last_words(finished.stderr) or finished.ended
        return finished.stdout.decode().strip()

    @asynccontextmanager
    async def _launch(self, mechanism: Mechanism, program: str) -> AsyncIterator[Guest]:
        loop = asyncio.get_running_loop()
        text = program.encode(errors="replace")
        folder = FOLDER if mechanism != "subprocess" else tempfile.mkdtemp(prefix="o1-reason-")
        ready, write = os.pipe()
        os.set_blocking(ready, False)
        try:
            command = _command(mechanism, self._order(mechanism, folder, len(text), write))
            options: dict[str, Any] = {"pass_fds": (write,), "env": {"LANG": "C.UTF-8"}, "start_new_session": True}
            starting = loop.subprocess_exec(
                lambda: Pipes(loop, self.limits.output), *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, **options
            )
            try:
                (transport, pipes), cancelled = await _whole(starting)
            finally:
                os.close(write)
            guest = Guest(pipes, transport, ready)
            try:
                if cancelled:
                    raise cancelled
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
        """What `launch` is told."""
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


async def _whole(call: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    """What `call` returns, and whether somebody tried to cancel it: asyncio loses a process that is half started."""
    task = asyncio.ensure_future(call)
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled and task.exception():
        raise cancelled
    return task.result(), cancelled


def _command(mechanism: Mechanism, order: dict[str, Any]) -> list[str]:
    python = [order["python"], "-I", "-S", "-c", _text("launch"), json.dumps(order)]
    if mechanism != "bubblewrap":
        return python
    apart = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session"]
    if order["user"] is None:
        apart += ["--unshare-user", "--uid", NOBODY, "--gid", NOBODY]
    else:  # root needs no user namespace, only what it takes to become somebody else
        apart += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    devices = ["/dev/null", "/dev/urandom"]
    for path in [*order["visible"], *devices]:
        for parent in reversed(Path(path).parents[:-1]):  # made on the way, they would be closed to all but root
            apart += ["--perms", "755", "--dir", str(parent)]
        apart += ["--dev-bind" if path in devices else "--ro-bind", path, path]
    apart += ["--perms", "1777", "--size", str(order["files"]), "--tmpfs", order["folder"], "--remount-ro", "/"]
    return [shutil.which("bwrap") or "bwrap", *apart, "--", *python]


def _python() -> str:
    """The interpreter itself, not a virtual environment's name for it."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _visible() -> list[str]:
    """Folders that Python needs, to be seen by every program and changed by none."""
    base = os.path.realpath(sys.base_prefix)
    folders = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", os.path.dirname(_python())]
    return [path for path in dict.fromkeys([*folders, f"{base}/lib", f"{base}/lib64"]) if os.path.isdir(path)]


def _text(name: str) -> str:
    return Path(__file__).with_name(f"{name}.py").read_text()
