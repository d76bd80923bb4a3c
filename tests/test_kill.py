"""kill -9, then resume: no finished call is paid again, and the answer is the same."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest

PROGRAM = '''
import asyncio, hashlib, json, os, random, sys
from pathlib import Path

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from o1_reason import BeamSearch, BestOfN, Budget, Proposals, Score, Step, Usage, create_reasoner

HERE, STRATEGY, CHECKPOINTS = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"


class Paid:
    """Policy and verifier; every finished call leaves a line in the log and its mark in what it returns."""

    identity = "paid-1"
    samples_per_call = 3

    async def pay(self, mark):
        await asyncio.sleep(0.005 + random.random() / 50)
        with open(HERE / "paid.log", "a") as log:
            log.write(mark + "\\n")

    async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
        await self.pay(f"p{seed}")
        dice, depth = random.Random(seed), len(state.steps) + 1
        end = depth == 4
        return Proposals(tuple((Step(f"p{seed} {i}", end, str(dice.randrange(9)) if end else None),) for i in range(n)),
                         Usage(1, 1, n))

    async def score(self, states):
        marks = [hashlib.sha256(state.text.encode()).hexdigest() for state in states]
        await self.pay(" ".join(marks))
        return [Score((random.Random(mark).random(),), critique=mark) for mark in marks]


async def main():
    strategy = {"beam": BeamSearch(3, 3), "best_of_n": BestOfN(16)}[STRATEGY]
    config = {"configurable": {"thread_id": "t"}}
    async with AsyncSqliteSaver.from_conn_string(str(HERE / "checkpoints.db")) as saver:
        reasoner = create_reasoner(Paid(), Paid(), strategy=strategy, budget=Budget(concurrency=4),
                                   checkpointer=saver if CHECKPOINTS else None, ledger=HERE / "ledger.db")
        known = CHECKPOINTS and (await reasoner.aget_state(config)).tasks
        output = await reasoner.ainvoke(None if known else {"question": "q"}, config)
    print(json.dumps([output["answer"], output["confidence"], bool(known)]))


asyncio.run(main())
'''


def start(folder, strategy, checkpoints):
    folder.mkdir(exist_ok=True)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(folder), strategy, str(checkpoints)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(*arguments):
    process = start(*arguments)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(out)


def paid(folder):
    """Marks of the calls that were paid, in order."""
    log = folder / "paid.log"
    return log.read_text().split() if log.exists() else []


def kept(folder):
    """Marks of the calls whose records the ledger holds."""
    if not (folder / "ledger.db").exists():
        return set()
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        records = [json.loads(text) for (text,) in ledger.execute("SELECT record FROM calls")]
    return {r["candidates"][0][0]["text"].split()[0] if "candidates" in r else r["critique"] for r in records}


@pytest.mark.parametrize(
    ("strategy", "checkpoints"),
    [("beam", True), ("best_of_n", False)],
    ids=["beam-checkpoints", "best_of_n-ledger-alone"],
)
def test_a_killed_search_pays_for_no_finished_call_again(strategy, checkpoints, tmp_path):
    *expected, _ = finish(tmp_path / "whole", strategy, checkpoints)
    folder = tmp_path / "killed"
    whole = len(paid(tmp_path / "whole"))
    for share in (0.2, 0.6):  # of all calls
        before, known = len(paid(folder)), kept(folder)
        process = start(folder, strategy, checkpoints)
        until = time.monotonic() + 30
        while len(paid(folder)) < share * whole and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not known & set(paid(folder)[before:])
    before, known = len(paid(folder)), kept(folder)
    *answer, resumed = finish(folder, strategy, checkpoints)
    assert answer == expected
    assert resumed == checkpoints
    assert known
    assert not known & set(paid(folder)[before:])
    assert set(paid(folder)) == set(paid(tmp_path / "whole"))  # what a kill cut off was asked again, nothing else
    repeated = sum(times - 1 for times in Counter(paid(folder)).values())
    assert repeated <= 2 * (9 + 3 * 3)  # two kills, each before the marks of at most four calls reached the ledger
