import io
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer
from rich.console import Console
from sums import Learner, Policy, RewardModel, Sum
from typer.testing import CliRunner

from o1_reason.errors import PolicyError
from o1_reason.learn.commands import register
from o1_reason.learn.record import Record
from o1_reason.learn.rounds import Progress
from o1_reason.learn.shown import improving

SMALL = (
    "--problems 40 --tokens 60 --option n=32 --solutions 3 --rollouts 3 --gate-problems 40 --gate-tries 2 "
    "--gate-tokens 40 --measure-problems 30 --measure-tokens 20 --measure-tokens 80"
)


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "start"
    folder.mkdir()
    Learner().begin(folder, seed=0, scale="", report=lambda line: None)
    return folder


class Weighted(Policy):
    """Knows the file of its weights."""

    @property
    def weights(self):
        return self.file


@pytest.fixture
def run(installed, weights):
    adapter = SimpleNamespace(
        policy=lambda model: Weighted(weights / "policy.json"),
        verifier=lambda model: Sum() if model == "rules" else RewardModel(weights / "prm.json"),
        learner=lambda model: Learner(),
    )
    installed(sums=adapter)
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)

    def call(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return SimpleNamespace(code=result.exit_code, out=result.stdout.strip(), err=" ".join(result.stderr.split()))

    return call


MODELS = ("--policy", "sums", "--verifier", "sums")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ([], {"question", "tree", "correct", "usage"}),
        (["--format", "sft"], {"prompt", "completion", "steps"}),
        (["--format", "preference"], {"prompt", "chosen", "rejected", "margin"}),
        (["--format", "stepwise"], {"prompt", "completions", "labels"}),
        (["--format", "stepwise", "--label", "omega_prm"], {"prompt", "completions", "labels"}),
        (["--format", "stepwise", "--label", "outcomes"], {"prompt", "completions", "labels"}),
        (["--format", "stepwise", "--label", "values", "-s", "mcts"], {"prompt", "completions", "labels"}),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_collect_writes_each_format_and_the_same_again_adds_nothing(run, tmp_path, arguments, fields):
    out = tmp_path / "data" / "out.jsonl"
    command = ("collect", "sums:train=12", "--out", out, *MODELS, "-s", "best_of_n", "--rollouts", 3, *arguments)
    result = run(*command)
    found = rows(out)
    assert (result.code, result.out) == (0, f"{len(found)} rows in {out}"), result.err
    assert found
    assert all(fields <= row.keys() for row in found)
    before = out.read_bytes()
    assert run(*command).code == 0
    assert out.read_bytes() == before


def test_traces_are_turned_into_other_formats_without_a_search(run, tmp_path):
    traces, out = tmp_path / "traces.jsonl", tmp_path / "sft.jsonl"
    run("collect", "sums:train=12", "--out", traces, *MODELS, "-s", "best_of_n")
    found = run("collect", traces, "--format", "sft", "--out", out, "--checker", "sums:rules", "-p", "sums")
    assert (found.code, found.err) == (0, "")
    assert {row["prompt"].strip() for row in rows(out)} <= {trace["question"] for trace in rows(traces)}


def test_problems_with_gold_answers_need_no_checker(run, tmp_path):
    file, out = tmp_path / "problems.jsonl", tmp_path / "traces.jsonl"
    problems = [{"question": question, "gold": "7"} for question in Learner().problems("train", 6, 0)]
    file.write_text("\n".join(map(json.dumps, problems)))
    assert run("collect", file, "--out", out, *MODELS, "-s", "best_of_n", "--samples", 2).code == 0
    found = rows(out)
    assert len(found) == 12
    assert all(trace["correct"] == (trace["answer"] == "7") for trace in found)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["sums:test=5"], "test problems are for measuring"),
        (["nosuch.jsonl"], "there is no file nosuch.jsonl; name a file"),
        (["sums:train:5"], "or LEARNER:SPLIT=N"),
        (["nobody:train=5"], "no adapter 'nobody' is installed"),
        (["sums:train=5", "--format", "csv"], "format must be one of traces, stepwise"),
        (["sums:train=5", "--label", "guess"], "label must be one of mips"),
        (["sums:train=5", "-o", "nosuch=1"], "no setting of BeamSearch"),
    ],
)
def test_what_cannot_be_collected_is_explained(run, tmp_path, arguments, why):
    result = run("collect", *arguments, "--out", tmp_path / "x", *MODELS)
    assert (result.code, why in result.err) == (2, True), result.err


def test_a_failing_policy_is_named_and_the_exit_code_is_1(run, tmp_path, monkeypatch):
    async def down(*arguments, **named):
        raise PolicyError("the endpoint is down")

    monkeypatch.setattr(Policy, "propose", down)
    result = run("collect", "sums:train=3", "--out", tmp_path / "x", *MODELS)
    assert (result.code, "PolicyError: the endpoint is down" in result.err) == (1, True), result.err


def test_models_are_trained_on_what_was_collected_from_the_weights_of_the_adapter(run, tmp_path, weights):
    steps, solutions, out = tmp_path / "steps.jsonl", tmp_path / "sft.jsonl", tmp_path / "weights"
    run("collect", "sums:train=40", "--format", "stepwise", "--out", steps, *MODELS)
    run("collect", "sums:train=40", "--format", "sft", "--out", solutions, *MODELS, "-s", "best_of_n")
    for kind, data in (("prm", steps), ("policy", solutions)):
        result = run("train", kind, data, "--model", "sums", "--out", out)
        assert (result.code, json.loads(result.out)) == (0, {"rows": len(rows(data))}), result.err
        new, old = ((folder / f"{kind}.json").read_text() for folder in (out, weights))
        assert json.loads(new) != json.loads(old)
        assert json.loads(new).keys() == json.loads(old).keys()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["prm", "--objective", "ppo"], "objective must be one of classification, regression, td"),
        (["policy", "--method", "ppo"], "method must be one of sft, dpo, grpo"),
        (["policy", "--set", "epochs"], "write NAME=VALUE"),
        (["policy", "--verifier", "sums"], "leave --verifier out"),
    ],
)
def test_what_cannot_be_trained_is_explained(run, tmp_path, arguments, why):
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")
    result = run("train", arguments[0], data, "--model", "sums", "--out", tmp_path / "w", *arguments[1:])
    assert (result.code, why in result.err) == (2, True), result.err


def improve(run, path, *more):
    return run("improve", "--model", "sums", "--out", path, *more)


def test_improve_shows_its_rounds_goes_on_lists_and_rolls_back(run, tmp_path):
    path = tmp_path / "run"
    result = improve(run, path, "--rounds", 1, *SMALL.split())
    assert result.code == 0, result.err
    assert "After 1 round: greedy" in " ".join(result.out.split())
    assert f"report: {path / 'report.html'}" in result.out
    assert f"weights: {path}/rounds/001/weights" in result.out
    assert "Learning run: sums, small, seed 0" in (path / "report.html").read_text()
    assert "round 1: gate reward model, " in result.err

    page = tmp_path / "page" / "run.html"
    more = improve(run, path, "--rounds", 2, "--tokens", 80, "--json", "--report", page)
    found = json.loads(more.out)
    assert [each["round"] for each in found] == [0, 1, 2]
    assert found == json.loads(run("rounds", "list", path, "--json").out)
    assert found[1]["gates"]["policy"]["accepted"] is found[1]["accepted"]["policy"]
    assert page.exists()
    plans = [json.loads((path / f"rounds/00{n}/plan.json").read_text()) for n in (1, 2)]
    assert [plan["tokens"] for plan in plans] == [60, 80], "what was not said again is as it was"
    assert {plan["problems"] for plan in plans} == {40}

    assert run("rounds", "rollback", path, 1).out == "rolled back: 2; in force: round 1"
    assert "After 1 round" in " ".join(run("rounds", "list", path).out.split())
    assert run("rounds", "report", path, "--out", page).out == f"wrote {page}"
    assert "Rolled back: 002-1." in page.read_text()


def test_the_scale_decides_what_is_not_said(run, tmp_path):
    improve(run, tmp_path / "run", "--rounds", 0, "--scale", "smoke", "--method", "dpo", "--set-prm", "epochs=3")
    plan = Record(tmp_path / "run").settings["plan"]
    assert (plan["problems"], plan["method"], plan["prm"]) == (20, "dpo", {"epochs": 3})
    improve(run, tmp_path / "run", "--rounds", 0, "--scale", "smoke", "--strategy", "mcts")
    plan = Record(tmp_path / "run").settings["plan"]
    assert (plan["strategy"], plan["option"], plan["method"]) == ("mcts", [], "dpo")
    for method, given, settings in (("grpo", ["steps=9"], {"steps": 9}), ("grpo", [], {"steps": 9}), ("sft", [], {})):
        more = [word for each in given for word in ("--set-policy", each)]
        improve(run, tmp_path / "run", "--rounds", 0, "--scale", "smoke", "--method", method, *more)
        plan = Record(tmp_path / "run").settings["plan"]
        assert (plan["method"], plan["policy"]) == (method, settings), "another method has other settings"


def test_a_run_starts_from_the_weights_of_another(run, tmp_path):
    improve(run, tmp_path / "one", "--rounds", 0, "--scale", "smoke", "--seed", 4)
    weights = tmp_path / "one/rounds/000/weights"
    more = improve(run, tmp_path / "two", "--rounds", 0, "--scale", "smoke", "--start", weights)
    assert more.code == 0
    for name in ("policy.json", "prm.json"):
        assert (tmp_path / "two/rounds/000/weights" / name).read_bytes() == (weights / name).read_bytes()
    wrong = improve(run, tmp_path / "three", "--rounds", 0, "--start", tmp_path / "two")
    assert (wrong.code, "no weights of a prm" in " ".join(wrong.err.split())) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--alpha", 0.7], "alpha must be"),
        (["--label", "guess"], "label must be one of"),
        (["--option", "width=3"], "no setting of BestOfN"),
        (["--problems", 0], "problems must be an integer >= 1"),
        (["--gate-problems", 4], "at least 5"),
    ],
)
def test_what_cannot_be_improved_is_explained(run, tmp_path, arguments, why):
    result = improve(run, tmp_path / "run", "--rounds", 1, *SMALL.split(), *arguments)
    assert (result.code, why in result.err) == (2, True), result.err


@pytest.mark.parametrize("command", [("list",), ("report",), ("rollback", 0)], ids=lambda c: c[0])
def test_without_a_run_the_way_to_one_is_told(run, tmp_path, command):
    result = run("rounds", command[0], tmp_path / "none", *command[1:])
    assert (result.code, "o1-reason improve --out" in result.err) == (2, True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "command", ["collect", "train prm", "train policy", "improve", "rounds list", "rounds rollback"]
)
def test_help_teaches_with_examples(run, command):
    result = run(*command.split(), "--help")
    assert result.code == 0
    assert f"o1-reason {command} " in " ".join(result.out.split())


def test_the_commands_cost_nothing_until_they_run():
    heavy = ("torch", "transformers", "ray", "numpy", "datasets", "trl", "pyarrow", "langgraph")
    code = f"import o1_reason.learn.commands, sys; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_on_a_terminal_a_bar_tells_how_far_it_is_and_how_long_it_takes(tmp_path):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=110, color_system=None)
    with improving(console) as progress:
        progress(Progress(0, 2, "begin", None, None, "policy 3/8"))
        progress(Progress(0, 2, "begin", 1.0, None, "2 files of weights", done=True))
        progress(Progress(1, 2, "gate_prm", 0.5, 125.0, "30 of 60"))
        progress(Progress(1, 2, "gate_prm", None, 125.0, ""))
    text = shown.getvalue()
    assert "beginning: first models, 0.0 s: 2 files of weights\n" in text
    assert "round 1: gate reward model" in text
    assert "30 of 60 2 min left" in text
    with improving(console) as progress:
        progress(Progress(1, 2, "collect", 0.25, None, "10 of 40"))
    assert re.search(r"10 of 40 [\d.]+ s left of this stage", shown.getvalue()), "of later ones nobody knows"
