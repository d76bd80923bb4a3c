"""Unit tests as outcome verifier: programs are right if they do what the tests say, whatever they look like.

Tests are cases of standard input and output, or Python source. Neither is in reach of the candidate: it runs in a
`Sandbox`, and what decides is decided in another process. Cases are compared here; Python tests run in a second sandbox
and call the candidate's functions across (`unit_tests_inside`).
"""

import asyncio
import hashlib
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import ConfigurationError, VerifierError
from ..mdp import Score, State, Usage
from ..sandbox import Finished, Guest, Sandbox, last_words
from ..together import together
from .outcome import UNKNOWN
from .unit_tests_inside import tests_in

_FENCED = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_PYTHON = ("", "py", "python", "python3")
_TOLD = 5  # failed tests that the critique names


class UnitTests:
    """1.0 if a finished state's program passes all tests, else 0.0; with `partial`, the share that it passes.

    tests     (standard input, expected standard output) pairs: the program is run once for each, has to end with
              status 0, and blanks at the ends of lines and lines at the end do not count. Or Python source: each
              top-level ``assert`` and each function ``test*`` is a test (where there are neither, each top-level
              call); what else it says is run first to last around them. It uses the candidate's functions and classes
              by name and imports all else that it needs, from the standard library.
    sandbox   shared by all verifiers it is given to, with its limits on each run; None: one of its own. A run is one
              case, or the Python tests up to the first that has to be killed; the rest then begins anew.
    in_place  lists, dicts and sets that Python tests hand to the candidate are changed for the tests too, if it
              changes them; otherwise the candidate cannot touch what the tests compare with

    The program is the last block fenced as Python, or as nothing, in the answer, or else in the steps; or else the
    answer as it stands. A state that is not finished gets 0.5: nothing is known about it.

    Raises ConfigurationError for tests that cannot work and for a machine that has no sandbox; VerifierError if the
    sandbox failed to start.
    """

    def __init__(
        self,
        tests: str | Sequence[tuple[str, str]],
        *,
        partial: bool = False,
        sandbox: Sandbox | None = None,
        in_place: bool = False,
    ) -> None:
        self.tests = tests if isinstance(tests, str) else tuple((given, expected) for given, expected in tests)
        self.partial = partial
        self.sandbox = sandbox or Sandbox()
        self.in_place = in_place
        self._names = _names(self.tests)

    @property
    def identity(self) -> str:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        told = json.dumps([self.tests, self.partial, self.in_place, repr(self.sandbox.limits), python])
        return f"unit-tests/{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """No model is asked."""
        return Usage()

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        return await together(self._score(state) for state in states)

    async def _score(self, state: State) -> Score:
        if not (state.steps and state.steps[-1].terminal):
            return Score((UNKNOWN,), "not finished")
        code = code_of(state)
        if code is None:
            return Score((0.0,), "no program in the answer")
        faults = await (self._source(code, self.tests) if isinstance(self.tests, str) else self._cases(code))
        return self._judged(faults)

    def _judged(self, faults: dict[int, str]) -> Score:
        """Tests without an entry in `faults` were not run; an empty entry is a test that was passed."""
        failed = [f"{self._names[i]} ({fault})" for i, fault in sorted(faults.items()) if fault]
        passed = len(faults) - len(failed)
        if not failed:
            return Score((1.0,))
        told = ", ".join(failed[:_TOLD]) + (f" and {len(failed) - _TOLD} more" if len(failed) > _TOLD else "")
        share = f"{passed} of {len(self._names)} tests passed; " if self.partial else ""
        return Score((passed / len(self._names) if self.partial else 0.0,), f"{share}failed: {told}")

    def _goes_on(self, faults: dict[int, str]) -> bool:
        return len(faults) < len(self._names) and (self.partial or not any(faults.values()))

    async def _cases(self, code: str) -> dict[int, str]:
        faults: dict[int, str] = {}
        while self._goes_on(faults):
            given, expected = self.tests[len(faults)]
            finished = await self.sandbox.run(code, given.encode())
            faults[len(faults)] = _difference(finished, expected)
        return faults

    async def _source(self, code: str, source: str) -> dict[int, str]:
        faults: dict[int, str] = {}
        while self._goes_on(faults):
            left = [i for i in range(len(self._names)) if i not in faults]
            text = _inside()
            programs = f"{text}\njudge({source!r}, {left}, {self.in_place})", f"{text}\nserve({code!r})"
            async with self.sandbox.start(*programs) as (judge, worker):
                await self._attend(judge, worker, faults, left)
        return faults

    async def _attend(self, judge: Guest, worker: Guest, faults: dict[int, str], left: Sequence[int]) -> None:
        """Be between the two until the tests are over or cannot go on, and write down how they went."""
        at, why = None, "took too long"
        with suppress(TimeoutError):
            async with asyncio.timeout(self.sandbox.limits.seconds):
                while self._goes_on(faults):
                    what, number, text = await _told(judge, worker)
                    if what == "broken":
                        raise ConfigurationError(f"the tests need what the sandbox's Python does not have: {text}")
                    if what == "began":
                        at = number
                    elif number is not None:
                        faults[number] = text
                    elif what == "ended" and at is None:
                        told = last_words(await judge.stderr.read(10_000))
                        raise VerifierError(f"the tests' process ended before the first test: {told}")
                    else:
                        at, why = None if what == "failed" else at, text
                        break
                else:
                    return
        await judge.check()
        await worker.check()
        for i in left if at is None or at in faults else [at]:
            faults.setdefault(i, why)


def code_of(state: State) -> str | None:
    """The program in a finished state: the last block of Python in the answer, or else in the steps; or the answer."""
    answer = state.steps[-1].answer or ""
    for text in (answer, state.text):
        blocks = [code for language, code in _FENCED.findall(text) if language.lower() in _PYTHON]
        if blocks:
            return textwrap.dedent(blocks[-1])
    return answer if answer.strip() else None


async def _told(judge: Guest, worker: Guest) -> tuple[str, int | None, str]:
    """What the tests tell next; what else the two say to each other is passed on."""
    while line := await _line(judge):
        if line.startswith(b'{"tell": '):  # nothing else is read here: it may hold what the candidate made up
            what, number, text = json.loads(line)["tell"]
            return what, number, text
        await _pass_on(line, worker)
        reply = await _line(worker)
        if not reply:
            return "gone", None, "ended its process, or said too much"
        await _pass_on(reply, judge)
    await judge.check()
    return "ended", None, "ended the tests"


async def _line(guest: Guest) -> bytes:
    """A whole line; nothing if there is none, or if it is longer than a message may be."""
    with suppress(ValueError):
        line = await guest.stdout.readline()
        return line if line.endswith(b"\n") else b""
    return b""


async def _pass_on(line: bytes, guest: Guest) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        guest.stdin.write(line)
        await guest.stdin.drain()


def _inside() -> str:
    return Path(__file__).with_name("unit_tests_inside.py").read_text()


def _difference(finished: Finished, expected: str) -> str:
    """Why a case is not passed; empty if it is. Does not give the expected output away."""
    if finished.ended != "exit":
        return "took too long" if finished.ended == "time" else "wrote too much"
    if finished.status:
        return f"exit status {finished.status}"
    return "" if _lines(finished.stdout.decode(errors="replace")) == _lines(expected) else "wrong output"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _names(tests: str | tuple[tuple[str, str], ...]) -> list[str]:
    """What the critique calls the tests. Raises ConfigurationError where there are none, or they cannot be run."""
    if not isinstance(tests, str):
        names = [f"case {i}" for i in range(1, len(tests) + 1)]
    else:
        try:
            names = [name for name, _ in tests_in(tests)[1]]
        except (SyntaxError, ValueError) as error:
            raise ConfigurationError(f"the tests cannot be run: {error}") from error
    if not names:
        raise ConfigurationError(
            "there are no tests: give (input, output) pairs, or Python source with asserts or functions test_..."
        )
    return names
