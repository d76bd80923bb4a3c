"""From problems and traces to the files that trainers read, in an order that does not depend on who finished first."""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .labelling import Method
from .monte_carlo import MathShepherd, MiPS
from .omega_prm import OmegaPRM
from .problems import Checker
from .rows import Row
from .store import RecordStore
from .traces import Trace
from .trees import outcomes, preference_pairs, solutions, tree_outcomes, tree_values

ROLLED = ("mips", "math_shepherd", "omega_prm")  # labels by rollouts of the policy from each step
READ = ("outcomes", "values")  # labels that the traces hold already
LABELS = (*ROLLED, *READ)
KINDS = ("sft", "preference", *READ)


def method_of(name: str, solutions: int, rollouts: int) -> Method:
    """A way to label steps by rollouts, one of `ROLLED`; `solutions` are OmegaPRM's searches."""
    ways: dict[str, Callable[[], Method]] = {
        "mips": lambda: MiPS(solutions, rollouts),
        "math_shepherd": lambda: MathShepherd(solutions, rollouts),
        "omega_prm": lambda: OmegaPRM(rollouts, searches=solutions),
    }
    if name not in ways:
        raise ConfigurationError(f"no label {name!r}; there are: {', '.join(LABELS)}")
    return ways[name]()


async def rows_of(traces: Iterable[Trace], kind: str, checker: Checker) -> AsyncIterator[Row]:
    """What trainers want of traces.

    sft          right solutions, whole
    preference   next steps that more of the finished paths through them end rightly, against their siblings
    outcomes     steps labelled with that share; `values`: with what the search backed up (MCTS)
    """
    if kind not in KINDS:
        raise ConfigurationError(f"no kind of data {kind!r}; there are: {', '.join(KINDS)}")
    for trace in traces:
        if kind == "sft":
            async for row in solutions(trace, checker):
                yield row
        elif kind == "outcomes":
            async for row in tree_outcomes(trace, checker):
                yield row
        elif kind == "values":
            for row in tree_values(trace):
                yield row
        else:
            shares = {i: share for i, (share, _) in (await outcomes(trace, checker)).items()}
            for row in preference_pairs(trace, values=shares):
                yield row


async def write_rows(rows: AsyncIterator[Row], path: Path) -> int:
    """Each id once; how many they are. The file is there whole, or as it was."""
    half = path.with_name(path.name + ".half")
    half.unlink(missing_ok=True)
    store = RecordStore(half)
    with store:
        count = 0
        async for row in rows:
            count += await store.add(row)
    os.replace(half, path)
    return count


def arrange(source: Path, target: Path) -> int:
    """Copy records in order of their ids; how many they are. Memory holds the ids and one record."""
    places: list[tuple[Any, int]] = []
    at = 0
    store = RecordStore(source)
    half = target.with_name(target.name + ".half")
    with open(source, "rb") as file:
        for record, line in zip(store, file, strict=False):
            places.append((record["id"], at))
            at += len(line)
        with open(half, "wb") as out:
            for _, place in sorted(places):
                file.seek(place)
                out.write(file.readline())
            out.flush()
            os.fsync(out.fileno())
    os.replace(half, target)
    return len(places)
