"""The process in which mathematics is done on texts that models wrote: ``python -m o1_reason.answers.mathworker``.

It reads requests and writes replies, one JSON object a line, and is killed by its parent (`mathematics`) when one takes
too long: ``10^{10^{10}}`` and ``(10^9)!`` are answers like any other. It ends when its standard input does.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .structure import key
from .values import Values

MEMORY = 1 << 30  # bytes of address space


def matches(pattern: str, text: str, full: bool) -> bool:
    """Whether a regular expression matches; it may backtrack for ever, here."""
    return bool(re.fullmatch(pattern, text) if full else re.search(pattern, text))


def violation(schema: Any, text: str) -> str:
    """What keeps `text` from being JSON that satisfies `schema`; empty: nothing."""
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        return getattr(error, "message", None) or f"not JSON: {error}"
    return ""


def limit_memory() -> None:
    """Where the system can: more is a MemoryError here, not a machine that swaps."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> None:
    """Serve until standard input ends."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # what a library prints is no reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    limit_memory()
    sys.set_int_max_str_digits(0)
    values = Values()
    operations: dict[str, Callable[..., Any]] = {
        "key": lambda text: key(text, values),
        "matches": matches,
        "violation": violation,
    }
    print(json.dumps({"result": "ready"}), file=replies, flush=True)
    for line in requests:
        request = json.loads(line)
        if hasattr(signal, "setitimer"):  # an orphan that calculates for ever would not see its input end
            signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 1)
        try:
            result = operations[request["do"]](*request["with"])
        except Exception:  # no memory, no stack, nothing it understands
            result = None
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"result": result}), file=replies, flush=True)


if __name__ == "__main__":
    sys.exit(main())
