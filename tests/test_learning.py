"""The learning loop on the embedded models, for real: search, rollouts, PyTorch, gates, killed in the middle."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from o1_reason_embedded import EmbeddedLearner, EmbeddedPolicy, EmbeddedVerifier
from o1_reason_embedded.policy import WEIGHTS

from o1_reason import BestOfN, search
from o1_reason.learn.plan import Plan
from o1_reason.learn.record import STAGES
from o1_reason.learn.rounds import improve

pytest.importorskip("torch", reason="training needs PyTorch: pip install 'o1-reason[train]'")

PLAN = Plan(
    problems=12, tokens=200, option=("n=8",), solutions=2, rollouts=2, prm={"epochs": 1, "batch": 16},
    policy={"epochs": 1, "batch": 16, "base": 0.0}, gate_problems=12, gate_tries=1, gate_tokens=150,
    measure_problems=8, measure_tokens=(100, 200),
)  # fmt: skip


class Shipped(EmbeddedLearner):
    """Begins with the weights that ship, not with minutes of training."""

    def begin(self, out, *, seed, scale, report):
        for name in ("policy", "prm"):
            shutil.copy(WEIGHTS / f"{name}.safetensors", out)


def run(path):
    return improve(path, 1, learner=Shipped(), scale="shipped", seed=3, plan=PLAN)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
from test_learning import run
run(sys.argv[1])
"""


def start(path):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(Path(__file__).parent)])


@pytest.mark.timeout(600)
def test_a_round_on_the_embedded_models_killed_in_its_training_and_gone_on_with(tmp_path):
    path = tmp_path / "run"
    process = start(path)
    until = time.monotonic() + 300
    while not (path / "rounds/001/prm.half").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {name: os.stat(path / f"rounds/001/{name}.json").st_mtime_ns for name in ("collect", "label")}
    assert not (path / "rounds/001/prm").exists()

    begin, first = run(path)
    assert done == {name: os.stat(path / f"rounds/001/{name}.json").st_mtime_ns for name in done}
    assert tuple(first.stages) == STAGES
    traces = [json.loads(line) for line in (first.folder / "traces.jsonl").read_text().splitlines()]
    assert len(traces) == PLAN.problems
    for role in ("policy", "prm"):
        verdict = first.stages[f"gate_{role}"]
        assert all(0 < tokens <= PLAN.gate_tokens for tokens in verdict["tokens"])
        new, old = (each / f"{role}.safetensors" for each in (first.folder / role, begin.weights))
        assert new.read_bytes() != old.read_bytes()
        in_force = (first.weights / f"{role}.safetensors").read_bytes()
        assert in_force == (new if verdict["accepted"] else old).read_bytes()
    measured = begin.stages["measure"]
    assert measured["prm"]["exact"], "judged by the exact solver, state by state"
    assert measured["prm"]["auc"]["value"] > 0.7
    assert measured["curve"][1]["accuracy"]["value"] > measured["greedy"]["accuracy"]["value"]
    policy, prm = EmbeddedPolicy(weights=first.folder / "policy" / "policy.safetensors"), first.weights
    result = asyncio.run(search("4 5 6 10", policy, EmbeddedVerifier(prm / "prm.safetensors"), BestOfN(16), seed=1))
    assert result.answer
