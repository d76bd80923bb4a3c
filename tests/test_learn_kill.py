"""kill -9 while data is made, then go on: nothing is lost, nothing is there twice, no finished call is paid again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from paid import paid

PROGRAM = """
import asyncio, sys
from pathlib import Path
from paid import Paid
from o1_reason import BeamSearch, Budget
from o1_reason.learn import GoldChecker, MathShepherd, Problem, RecordStore, TraceStore, collect, label

HERE, WHAT = Path(sys.argv[1]), sys.argv[2]
problems = [Problem(f"question {i}", "0") for i in range(12)]
model, ledger = Paid(HERE), HERE / "ledger.db"


async def main():
    if WHAT == "collect":
        store = TraceStore(HERE / "data.jsonl")
        await collect(problems, model, model, BeamSearch(3, 3), Budget(concurrency=1), None, store, ledger=ledger)
    else:
        store = RecordStore(HERE / "data.jsonl")
        await label(problems, MathShepherd(4, 4), model, GoldChecker(), store, calls=2, ledger=ledger)


asyncio.run(main())
"""


def start(folder: Path, what: str) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), what], env=environment)


def records(folder: Path) -> list[dict[str, object]]:
    return sorted(map(json.loads, (folder / "data.jsonl").read_text().splitlines()), key=lambda record: record["id"])


@pytest.mark.parametrize("what", ["collect", "label"])
def test_data_that_was_killed_while_it_was_made_is_completed_without_loss_or_repetition(what: str, tmp_path: Path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, what).wait(60) == 0
    calls = [mark for _, mark in paid(whole)]
    assert len(calls) == len(set(calls)) > 100
    for share in (0.2, 0.6):  # of all calls
        process = start(folder, what)
        until = time.monotonic() + 30
        while len(paid(folder)) < share * len(calls) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open(folder / "data.jsonl", "ab") as data:
        data.write(b'{"id": "torn", "quest')  # as a kill in the middle of a write leaves it
    assert start(folder, what).wait(60) == 0
    assert records(folder) == records(whole)
    repeated = Counter(mark for _, mark in paid(folder))
    assert set(repeated) == set(calls)
    # Each kill may cut off what had been paid and was not in the ledger yet: at most what the calls in flight brought.
    in_flight = 4 * 3 if what == "collect" else 4 * 2
    assert sum(repeated.values()) - len(calls) <= 2 * in_flight
    before = len(paid(folder))
    assert start(folder, what).wait(60) == 0
    assert len(paid(folder)) == before, "all was done, and was paid for again"
