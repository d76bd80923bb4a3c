r"""When two answers are the same to mathematics: they have the same key.

Because it is an equality of keys, being equivalent is symmetric and transitive and does not depend on the order of
comparisons. Numbers, words and what is made of them have their key at once. Everything else is evaluated in a process
of its own (`mathworker`: sympy, by way of math-verify), one for all searches, which is started when it is first needed
and killed and replaced when an answer takes it longer than `SECONDS`; that answer is then compared as text.
"""

import asyncio
import atexit
import json
import os
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from .normal import LONGEST, canonical
from .structure import key

SECONDS = 3.0  # for one answer
START_SECONDS = 60.0  # for the process to import its libraries
REMEMBERED = 16_384  # keys


class UnansweredError(Exception):
    """The process had no time or no memory for it, died of it, or has no answer."""


class NoWorkerError(UnansweredError):
    """The process cannot be started."""


class Worker:
    """The process, and the keys it has found. Thread-safe; it does one thing at a time."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.started = 0  # processes so far
        self._keys: dict[str, str] = {}
        self._unusable = False
        self._abandoned: list[Any] = []
        self._forget()

    def _forget(self) -> None:
        self.executor = ThreadPoolExecutor(1, "o1-reason-mathematics")  # where async code waits for it
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._replies: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def known(self, text: str) -> str | None:
        """The key of a canonical text, if it has been asked for before."""
        return self._keys.get(text)

    def key(self, text: str) -> str:
        """The key of a canonical text; the text itself where mathematics has none, or no time."""
        found = self._keys.get(text)
        if found is None:
            try:
                found = self.ask("key", text)
            except UnansweredError:
                found = text
            if len(self._keys) >= REMEMBERED:
                self._keys.pop(next(iter(self._keys)), None)
            self._keys[text] = found
        return found

    def ask(self, do: str, *arguments: Any) -> Any:
        """The result of an operation of `mathworker`; once the process runs, within `seconds`.

        Raises UnansweredError if there is none: it took longer, or the process died of it, or cannot be started.
        """
        request = json.dumps({"do": do, "with": arguments, "seconds": self.seconds})
        with self._lock:
            try:
                self._send(request)
                reply = self._replies.get(timeout=self.seconds)
            except (OSError, queue.Empty):
                reply = None
            except BaseException:  # an interrupt: the reply would be taken for that of the next request
                self._stop()
                raise
            if reply is None:
                self._stop()
        if self._unusable:
            raise NoWorkerError(_NO_WORKER)
        if reply is None or reply["result"] is None:
            raise UnansweredError(f"no result within {self.seconds} seconds and the memory allowed")
        return reply["result"]

    def _send(self, request: str) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()

    def _start(self) -> None:
        if self._unusable:
            raise OSError("it cannot be started")
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        self._replies = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.mathworker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            text=True,
        )
        self.started += 1
        self._reader = threading.Thread(target=_read, args=(self._process.stdout, self._replies), daemon=True)
        self._reader.start()
        try:
            ready = self._replies.get(timeout=START_SECONDS)
        except queue.Empty:
            ready = None
        if ready is None:
            self._unusable = True
            warnings.warn(f"answers are compared as text: {_NO_WORKER}", RuntimeWarning, stacklevel=2)
            raise OSError("it does not start")

    def _stop(self) -> None:
        process, reader = self._process, self._reader
        self._process = self._reader = None
        if process is None:
            return
        process.kill()
        process.wait()
        if reader is not None:
            reader.join()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not yet written cannot be
                pipe.close()  # type: ignore[union-attr]

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._stop()

    def abandon(self) -> None:
        """After a fork: the process is the parent's, and so are its pipes and what waits at them."""
        self._abandoned.append((self._process, self._reader, self._lock, self.executor))
        self._forget()


_NO_WORKER = "the process for mathematics does not start; `python -m o1_reason.answers.mathworker` shows why"


def _read(lines: Iterable[str], replies: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    with suppress(ValueError):  # half a line
        for line in lines:
            replies.put(json.loads(line))
    replies.put(None)


@cache
def worker() -> Worker:
    """The one that all searches of this process share."""
    shared = Worker()
    atexit.register(shared.close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=shared.abandon)
    return shared


class _NotYetError(Exception):
    """It takes mathematics."""


class _Plain:
    """The `Evaluator` that evaluates nothing."""

    def expression(self, text: str) -> str:
        raise _NotYetError

    def difference(self, left: str, right: str, *, directed: bool) -> str:
        raise _NotYetError


_PLAIN = _Plain()


def plain_key(text: str) -> str | None:
    """The key of a canonical text if that takes no mathematics, or has been found out before; never waits."""
    if len(text) > LONGEST:
        return text
    try:
        return key(text, _PLAIN)
    except _NotYetError:
        return worker().known(text)
    except RecursionError:  # brackets in brackets
        return text


def equivalent(a: str, b: str) -> bool:
    """Whether two answers are the same; never hangs, never raises on model text.

    May wait for mathematics, a few seconds at worst: in async code, compare `answer_key`s.
    """
    left, right = canonical(a), canonical(b)
    return left == right or _key(left) == _key(right)


def _key(text: str) -> str:
    found = plain_key(text)
    return worker().key(text) if found is None else found


async def answer_key(answer: str) -> str:
    """A text that is the same for equivalent answers, and for no others; the event loop goes on meanwhile."""
    text = canonical(answer)
    found = plain_key(text)
    if found is not None:
        return found
    return await _aside(worker().key, text)


async def answer_keys(answers: Sequence[str]) -> list[str]:
    """`answer_key` of each."""
    return [await answer_key(answer) for answer in answers]


async def ask(do: str, *arguments: Any) -> Any:
    """`Worker.ask`; the event loop goes on meanwhile. Raises UnansweredError."""
    return await _aside(worker().ask, do, *arguments)


async def _aside(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(worker().executor, call, *arguments)


async def classes(answers: Sequence[str]) -> dict[str, list[int]]:
    """The indices of equivalent answers, under the shortest normal form among them, in order of first appearance."""
    members: dict[str, list[int]] = {}
    for i, found in enumerate(await answer_keys(answers)):
        members.setdefault(found, []).append(i)
    return {
        min((canonical(answers[i]) for i in indices), key=lambda text: (len(text), text)): indices
        for indices in members.values()
    }
