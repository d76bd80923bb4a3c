import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sums import Learner

from o1_reason.errors import ConfigurationError
from o1_reason.learn.dataset import arrange
from o1_reason.learn.folders import digests
from o1_reason.learn.plan import Plan
from o1_reason.learn.record import STAGES, Record
from o1_reason.learn.report import render
from o1_reason.learn.rounds import improve, rollback, time_left
from o1_reason.learn.store import RecordStore

PLAN = Plan(
    problems=30, tokens=60, option=("n=32",), solutions=3, rollouts=3, gate_problems=24, gate_tries=2, gate_tokens=40,
    measure_problems=20, measure_tokens=(20, 40, 80),
)  # fmt: skip


def run(path, rounds=2, **changes):
    given = {"learner": Learner(), "scale": "any", "seed": 0, "plan": PLAN}
    return improve(path, rounds, **{**given, **changes})


def content(path):
    """Everything that a run leaves behind, but for the time it took."""
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            text = file.read_bytes()
            if file.suffix == ".json" and "weights" not in file.parts and "seconds" in json.loads(text):
                text = {**json.loads(text), "seconds": 0}
            found[file.relative_to(path).as_posix()] = text
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    return path, run(path, 3)


def accuracy(each, k=-1):
    return each.stages["measure"]["curve"][k]["accuracy"]["value"]


def test_each_round_is_better_until_there_is_nothing_to_gain(done):
    _, rounds = done
    assert [each.number for each in rounds] == [0, 1, 2, 3]
    assert rounds[1].accepted("policy")
    assert rounds[1].accepted("prm")
    assert accuracy(rounds[0]) < 0.4 < accuracy(rounds[1]) <= accuracy(rounds[3])
    greedy = [each.stages["measure"]["greedy"]["accuracy"]["value"] for each in rounds]
    assert greedy == sorted(greedy)
    assert rounds[1].stages["measure"]["prm"]["auc"]["value"] > rounds[0].stages["measure"]["prm"]["auc"]["value"]


def test_what_is_in_force_is_what_passed_its_gate(done):
    path, rounds = done
    for each in rounds[1:]:
        for role in ("policy", "prm"):
            verdict = each.stages[f"gate_{role}"]
            assert verdict["accepted"] == (verdict["p"] <= verdict["alpha"])
            before = path / f"rounds/{each.number - 1:03}/weights/{role}.json"
            expected = each.folder / role / f"{role}.json" if verdict["accepted"] else before
            assert (each.weights / f"{role}.json").read_text() == expected.read_text()
    rejected = [each for each in rounds[1:] if False in (each.accepted("policy"), each.accepted("prm"))]
    assert rejected, "a rejected candidate keeps its record"
    assert all((each.folder / "prm" / "prm.json").exists() for each in rejected)


def test_gates_use_fresh_problems_and_nothing_held_out_is_trained_on(done):
    _, rounds = done
    gates = [set(each.stages[name]["questions"]) for each in rounds[1:] for name in ("gate_prm", "gate_policy")]
    assert len(set().union(*gates)) == sum(map(len, gates)) == 6 * PLAN.gate_problems
    measured = set(rounds[0].stages["measure"]["questions"])
    kept_apart = measured.union(*gates)
    assert measured.isdisjoint(set().union(*gates))
    for each in rounds[1:]:
        for name in ("traces.jsonl", "steps.jsonl", "policy.jsonl"):
            rows = [json.loads(line) for line in (each.folder / name).read_text().splitlines()]
            assert rows
            assert not kept_apart & {row.get("question") or row["prompt"].strip() for row in rows}
    assert len({each.stages["measure"]["seed"] for each in rounds}) == 4
    assert {tuple(each.stages["measure"]["questions"]) for each in rounds} == {
        tuple(rounds[0].stages["measure"]["questions"])
    }


def test_both_sides_of_a_gate_have_the_same_budget_and_what_they_used_is_told(done):
    for each in done[1][1:]:
        for name in ("gate_prm", "gate_policy"):
            verdict = each.stages[name]
            assert verdict["budget"] == PLAN.gate_tokens
            assert all(0 < tokens <= PLAN.gate_tokens for tokens in verdict["tokens"])


class Few(Learner):
    """As many held-out problems as one gate wants."""

    def problems(self, split, n, seed):
        if split == "valid" and n > PLAN.gate_problems:
            raise ConfigurationError(f"there are {PLAN.gate_problems} problems; {n} were asked for")
        return super().problems(split, n, 0 if split == "valid" else seed)


def test_where_held_out_problems_run_out_the_level_falls_with_every_gate_that_used_them(tmp_path):
    rounds = run(tmp_path / "run", 2, learner=Few())
    verdicts = [each.stages[name] for each in rounds[1:] for name in ("gate_prm", "gate_policy")]
    assert [verdict["shared"] for verdict in verdicts] == [0, 1, 2, 3]
    assert [verdict["alpha"] for verdict in verdicts] == [0.05, 0.025, 0.0125, 0.00625]


class Overlap(Learner):
    def problems(self, split, n, seed):
        return super().problems("train", n, 0)


def test_a_learner_whose_splits_overlap_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="training problems are held out"):
        run(tmp_path / "run", 1, learner=Overlap())


class BadTrainer(Learner):
    """Training leaves a random policy."""

    def train_policy(self, data, start, out, **settings):
        self.begin(out, seed=3, scale="", report=print)
        (out / "prm.json").unlink()
        return {}


def test_a_worse_candidate_is_rejected_and_the_incumbent_goes_on(tmp_path):
    run(tmp_path / "run", 1)
    rounds = run(tmp_path / "run", 2, learner=type("Learner", (BadTrainer,), {})())
    verdict = rounds[2].stages["gate_policy"]
    assert (verdict["accepted"], verdict["difference"] < 0) == (False, True)
    assert (rounds[2].weights / "policy.json").read_text() == (rounds[1].weights / "policy.json").read_text()


def test_a_run_with_all_its_rounds_is_left_alone_and_more_rounds_go_on_from_it(done, tmp_path):
    path, _ = done
    whole = content(path)
    assert len(run(path, 3)) == len(run(path, 1)) == 4
    assert content(path) == whole
    run(tmp_path / "run", 1)
    run(tmp_path / "run", 3)
    assert content(tmp_path / "run") == whole


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"seed": 1}, "has seed 0, not 1"), ({"scale": "big"}, "has scale"), ({"learner": Few()}, "has learner")],
)
def test_another_run_in_the_same_folder_is_refused(done, changes, why):
    with pytest.raises(ConfigurationError, match=why):
        run(done[0], **changes)


def test_a_run_can_start_from_the_weights_of_another(done, tmp_path):
    start = done[1][3].weights
    begun = run(tmp_path / "run", 0, start=start)[0]
    settings = Record(tmp_path / "run").settings["start"]
    assert settings == {"folder": str(start), "files": digests(start, start)}
    assert begun.stages["begin"]["files"] == {f"weights/{name}": digest for name, digest in settings["files"].items()}
    assert accuracy(begun) == accuracy(done[1][3])
    (start / "more.txt").write_text("not weights")
    first = run(tmp_path / "run", 1)[1]  # goes on without being told again
    (start / "more.txt").unlink()
    assert first.finished
    assert f"It began with the weights in {start}." in render(Record(tmp_path / "run"))
    assert not (begun.weights / "more.txt").exists()
    with pytest.raises(ConfigurationError, match="has start"):
        run(tmp_path / "run", 1, start=done[1][0].weights)
    with pytest.raises(ConfigurationError, match="has start None"):
        run(done[0], 3, start=start)


def test_a_run_has_its_learners_plan_unless_it_is_told_another(tmp_path):
    run(tmp_path / "run", 0, scale="smoke", plan=None)
    assert Record(tmp_path / "run").settings["plan"] == Learner().plan("smoke").to_data()
    run(tmp_path / "run", 0, scale="smoke", plan=PLAN)
    run(tmp_path / "run", 0, scale="smoke", plan=None)
    assert Record(tmp_path / "run").settings["plan"] == PLAN.to_data()


def test_a_start_without_weights_or_with_others_than_at_first_is_refused(done, tmp_path):
    with pytest.raises(ConfigurationError, match="no weights of a prm"):
        run(tmp_path / "run", 0, start=done[1][1].folder / "policy")
    assert not (tmp_path / "run/run.json").exists()
    start = shutil.copytree(done[1][0].weights, tmp_path / "start")
    Record(tmp_path / "run").open("Learner", "any", 0, PLAN, start)
    (start / "policy.json").write_text((done[1][3].weights / "policy.json").read_text())
    with pytest.raises(ConfigurationError, match="changed since the run began"):
        run(tmp_path / "run", 0)


def test_weights_that_somebody_has_changed_are_not_built_upon(tmp_path):
    rounds = run(tmp_path / "run", 1)
    (rounds[1].weights / "policy.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"rounds rollback .* 0"):
        run(tmp_path / "run", 2)


def test_a_rolled_back_round_is_kept_its_problems_stay_used_and_the_next_one_is_another(tmp_path):
    path = tmp_path / "run"
    before = run(path, 2)
    held_out = {
        q for each in before[1:] for name in ("gate_prm", "gate_policy") for q in each.stages[name]["questions"]
    }
    assert rollback(path, 1) == [2]
    assert rollback(path, 1) == []
    assert [each.number for each in Record(path).rounds()] == [0, 1]
    again = run(path, 2)
    for name in ("gate_prm", "gate_policy"):
        assert held_out.isdisjoint(again[2].stages[name]["questions"])
    assert again[2].stages["collect"]["seed"] != before[2].stages["collect"]["seed"]
    rollback(path, 0)
    assert sorted(each.name for each in (path / "undone").iterdir()) == ["001-1", "002-1", "002-2"]
    with pytest.raises(ConfigurationError, match=r"no finished round 7 .* finished: 0"):
        rollback(path, 7)


def test_a_new_plan_is_for_the_rounds_to_come(tmp_path):
    run(tmp_path / "run", 1)
    rounds = run(tmp_path / "run", 2, plan=replace(PLAN, problems=50))
    assert [each.stages["collect"]["rows"]["traces.jsonl"] for each in rounds[1:]] == [30, 50]
    assert len(run(tmp_path / "run", 3, plan=None)) == 4
    assert json.loads((tmp_path / "run/rounds/003/plan.json").read_text())["problems"] == 50


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"problems": 0}, "problems must be an integer >= 1"),
        ({"label": "guess"}, "label must be one of mips"),
        ({"objective": "ppo"}, "objective must be one of"),
        ({"method": "ppo"}, "method must be one of sft"),
        ({"alpha": 0.5}, "alpha must be"),
        ({"measure_tokens": (40, 20)}, "rising"),
        ({"strategy": "magic"}, "unknown strategy"),
        ({"option": ("width=4",)}, "no setting of BestOfN"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_at_once(changes, why):
    with pytest.raises(ConfigurationError, match=why):
        replace(PLAN, **changes)


def test_a_plan_survives_its_file():
    plan = replace(PLAN, prm={"epochs": 2}, policy={"base": 0.5})
    assert Plan.from_data(json.loads(json.dumps(plan.to_data()))) == plan


def test_time_left_is_told_from_what_the_stages_took(done):
    _, rounds = done
    took = {"collect": 5, "label": 4, "train_prm": 3, "gate_prm": 2, "train_policy": 3, "gate_policy": 2, "measure": 1}
    known = [
        replace(each, stages={name: {**stage, "seconds": took.get(name, 0)} for name, stage in each.stages.items()})
        for each in rounds
    ]
    assert time_left(known, 4, 4, "measure", None, 0.25) == 0.75
    assert time_left(known, 4, 4, "gate_policy", 0.5, 10) == 10 + 1
    assert time_left(known, 4, 6, "collect", None, 99) == 0 + 15 + 2 * 20
    assert time_left(known[:1], 1, 1, "collect", None, 1) is None


def test_progress_names_the_stages_in_turn_and_ends_with_no_time_left(tmp_path):
    told = []
    run(tmp_path / "run", 2, progress=told.append)
    names = list(dict.fromkeys((each.round, each.stage) for each in told))
    assert names == [(0, "begin"), (0, "measure"), *((n, stage) for n in (1, 2) for stage in STAGES)]
    assert told[-1].share == 1
    assert told[-1].left == pytest.approx(0)
    assert all(each.left is not None for each in told if each.round == 2)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
from test_rounds import run
run(sys.argv[1])
"""


def start(path):
    command = [sys.executable, "-c", PROGRAM, str(path), str(Path(__file__).parent)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def grown(path):
    """How many files there are; folders that go meanwhile do not matter to `os.walk`."""
    return sum(len(files) for _, _, files in os.walk(path))


def test_a_killed_run_goes_on_where_it_was_and_ends_as_if_nothing_had_been(tmp_path):
    path, kills = tmp_path / "run", 0
    expected = content(run(tmp_path / "whole") and tmp_path / "whole")
    for size in range(3, len(expected), 7):
        process = start(path)
        until = time.monotonic() + 60
        while grown(path) < size and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if ended:
            break
        kills += 1
    marks = [file for file in path.rglob("*.json") if file.stem in STAGES]
    stamps = {file: file.stat().st_mtime_ns for file in marks}
    assert kills >= 3
    assert stamps
    process = start(path)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps, "a finished stage was repeated"
    assert content(path) == expected


def test_two_processes_do_not_share_a_run(tmp_path):
    path = tmp_path / "run"
    with Record(path).locked():
        process = start(path)
        assert "another process is at work on the run" in process.communicate()[1]
        with pytest.raises(ConfigurationError, match="another process"):
            run(path)
    run(path, 0)


class Pool(Learner):
    """As many held-out problems as four gates want, drawn anew with every seed."""

    def problems(self, split, n, seed):
        if split != "valid":
            return super().problems(split, n, seed)
        pool = super().problems(split, 4 * PLAN.gate_problems, 0)
        if n > len(pool):
            raise ConfigurationError(f"there are {len(pool)} problems; {n} were asked for")
        return random.Random(seed).sample(pool, n)


def test_a_gate_draws_until_it_has_problems_that_no_gate_has_used(tmp_path):
    rounds = run(tmp_path / "run", 2, learner=Pool())
    verdicts = [each.stages[name] for each in rounds[1:] for name in ("gate_prm", "gate_policy")]
    assert [verdict["shared"] for verdict in verdicts] == [0, 0, 0, 0]
    assert len({question for verdict in verdicts for question in verdict["questions"]}) == 4 * PLAN.gate_problems


async def test_files_do_not_depend_on_who_finished_first(tmp_path):
    rows = [{"id": f"{n:02}", "text": "é" * n} for n in (7, 3, 11, 5)]
    for name, order in (("one", rows), ("other", rows[::-1])):
        with RecordStore(tmp_path / f"{name}.rows") as store:
            await store.add(*order)
        assert arrange(tmp_path / f"{name}.rows", tmp_path / f"{name}.jsonl") == 4
    one, other = ((tmp_path / f"{name}.jsonl").read_text() for name in ("one", "other"))
    assert one == other
    assert [json.loads(line)["id"] for line in one.splitlines()] == ["03", "05", "07", "11"]
