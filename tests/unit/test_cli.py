import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from o1_reason import Tree, __version__
from o1_reason.cli import app
from o1_reason.learn import TraceStore
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

SCRIPT = {(): ["think [bold]", "= 7"], ("think [bold]",): ["= 42"]}
POLICIES = {
    "": lambda: ScriptedPolicy(SCRIPT),
    "empty": lambda: ScriptedPolicy({}),
    "down": lambda: ScriptedPolicy({(): OSError("network down")}),
}
VERIFIERS = {
    "": lambda: ScriptedVerifier({"= 42": 0.9, "= 7": 0.1, "think [bold]": 0.5}),
    "no": lambda: ScriptedVerifier({}, 0.0),
}


@pytest.fixture
def solve(installed):
    """`o1-reason solve` with scripted models; everything it prints comes back with single spaces."""
    installed(fake=SimpleNamespace(policy=lambda m: POLICIES[m](), verifier=lambda m: VERIFIERS[m]()))

    def run(*arguments, policy="fake", verifier="fake", question="q"):
        models = ["--policy", policy, "--verifier", verifier]
        result = CliRunner().invoke(app, ["solve", question, *models, *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return SimpleNamespace(
            code=result.exit_code, out=" ".join(result.stdout.split()), err=" ".join(result.stderr.split())
        )

    return run


def test_an_answer_is_shown_with_its_reasoning_confidence_and_cost(solve):
    result = solve()
    assert result.code == 0
    assert result.out.startswith("think [bold] = 42 answer 42 confidence 0.90 cost 3 tokens generated")
    assert "3 nodes, 2 policy and 2 verifier calls" in result.out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"policy": "fake:empty"}, "no answer (exhausted)"),
        ({"verifier": "fake:no"}, "no answer passed the check; the best attempt was"),
    ],
)
def test_without_an_answer_the_exit_code_is_1_and_the_reason_is_told(solve, options, why):
    result = solve(**options)
    assert (result.code, why in result.out) == (1, True)


@pytest.mark.parametrize("limit", ["calls", "nodes"])
def test_a_budget_of_nothing_is_told(solve, limit):
    result = solve(f"--budget-{limit}", "0")
    assert (result.code, "no answer (budget)" in result.out) == (1, True)


def test_a_model_that_fails_is_exit_code_1(solve):
    result = solve(policy="fake:down")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("PolicyError: the policy failed: OSError: network down")


def test_without_a_verifier_beam_has_an_answer_and_no_confidence(solve):
    result = solve("--strategy", "beam", verifier="none")
    assert result.code == 0
    assert "confidence" not in result.out


def test_without_a_verifier_the_default_is_a_vote(solve):
    result = solve(verifier="none")
    assert result.code == 0
    assert "0 verifier calls" in result.out
    assert "confidence" in result.out, "the share of the votes"


def test_another_policy_than_the_embedded_one_is_not_judged_by_the_embedded_verifier(installed):
    installed(fake=SimpleNamespace(policy=lambda m: POLICIES[m](), verifier=lambda m: VERIFIERS[m]()))
    result = CliRunner().invoke(app, ["solve", "q", "--policy", "fake"])
    assert result.exit_code == 0
    assert "0 verifier calls" in " ".join(result.output.split())


def test_json_is_one_object_and_nothing_else(solve):
    result = solve("--json")
    data = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert (data["answer"], data["confidence"], data["stop"]) == ("42", 0.9, "done")
    assert data["ranking"] == [["42", 0.9], ["7", 0.1]]
    assert data["usage"]["calls"] == data["policy_usage"]["calls"] + data["verifier_usage"]["calls"] == 4
    assert "tree" not in data


def test_json_with_tree_holds_the_whole_tree(solve):
    data = json.loads(solve("--json", "--tree").out)
    tree = Tree.from_data(data["tree"])
    assert (len(tree), tree.nodes[data["node"]].step.answer) == (data["nodes"], "42")


def test_json_of_a_search_without_an_answer_still_parses(solve):
    result = solve("--json", policy="fake:empty")
    assert (result.code, json.loads(result.out)["answer"]) == (1, None)


def test_tree_shows_every_step_with_its_score_and_marks_the_answer(solve):
    out = solve("--tree").out
    for part in ("question", "think [bold] 0.50", "= 42 0.90 ✓ answer", "= 7 0.10 answer"):
        assert part in out


def test_the_tree_shows_what_failed(solve, monkeypatch):
    monkeypatch.setitem(POLICIES, "half", lambda: ScriptedPolicy({**SCRIPT, ("think [bold]",): OSError("down")}))
    result = solve("--tree", policy="fake:half")
    assert result.code == 0
    assert "failed: the policy failed: OSError: down" in result.out


def test_settings_of_the_strategy_are_applied(solve):
    data = json.loads(solve("-s", "best_of_n", "-o", "n=3", "-o", "vote=majority", "--json", "--tree").out)
    assert data["tree"]["nodes"][0]["drawn"] == 3


def test_a_ledger_is_written_and_read(solve, tmp_path, monkeypatch):
    path = str(tmp_path / "calls.sqlite")
    first = json.loads(solve("--json", "--ledger", path).out)
    monkeypatch.setitem(POLICIES, "", lambda: ScriptedPolicy({(): OSError("asked again")}))
    second = json.loads(solve("--json", "--ledger", path).out)
    assert {**second, "seconds": 0} == {**first, "seconds": 0}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--strategy", "dream"], "unknown strategy 'dream'"),
        (["--policy", "nowhere"], "no adapter 'nowhere' is installed; there are: fake"),
        (["--verifier", "nowhere"], "no adapter 'nowhere'"),
        (["-o", "width"], "'width' is no setting of BeamSearch; settings: aggregate, branch"),
        (["-o", "n=3"], "'n=3' is no setting of BeamSearch"),
        (["-o", "width=0"], "width must be an integer >= 1"),
        (["-o", "width=many"], "width must be an integer >= 1; got 'many'"),
        (["-o", "aggregate=[1]"], "aggregate"),
        (["--budget-calls", "-1"], "--budget-calls"),
        (["--budget-calls", "many"], "--budget-calls"),
        (["--budget-seconds", "nan"], "--budget-seconds"),
        (["--concurrency", "0"], "--concurrency"),
        (["--seed", "x"], "--seed"),
        (["--what"], "--what"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(solve, arguments, why):
    result = solve(*arguments)
    assert (result.code, result.out) == (2, "")
    assert why in result.err


def test_an_empty_question_is_wrong_usage(solve):
    result = solve(question=" ")
    assert (result.code, result.err) == (2, "cannot do that: the question is empty")


def test_a_recorded_search_is_a_trace_that_holds_its_tree_and_stands_there_once(solve, tmp_path):
    path = tmp_path / "traces.jsonl"
    first = json.loads(solve("--json", "--tree", "--record", str(path)).out)
    solve("--record", str(path))
    solve("--record", str(path), "--seed", "1")
    traces = list(TraceStore(path))
    assert [trace["seed"] for trace in traces] == [0, 1]
    assert traces[0]["tree"] == first["tree"]
    assert (traces[0]["answer"], traces[0]["node"]) == (first["answer"], first["node"])


def test_an_unusable_ledger_is_exit_code_1(solve, tmp_path):
    result = solve("--ledger", str(tmp_path))
    assert (result.code, result.err.startswith("LedgerError: the ledger")) == (1, True)


def test_a_question_outside_the_embedded_domain_is_wrong_usage():
    result = CliRunner().invoke(app, ["solve", "What is love?"])
    assert result.exit_code == 2
    assert "arithmetic puzzles only" in " ".join(result.stderr.split())


def test_version_adapters_and_help():
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).stdout == f"o1-reason {__version__}\n"
    assert "embedded" in runner.invoke(app, ["adapters"]).stdout.split()
    assert "--budget-seconds" in runner.invoke(app, ["solve", "--help"], env={"COLUMNS": "120"}).stdout
    assert runner.invoke(app, []).exit_code == 2


def test_a_real_process_solves_offline():
    command = [sys.executable, "-m", "o1_reason.cli", "solve", "4 5 6 10", "--json", "--tree"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    data = json.loads(done.stdout)
    assert done.stderr == ""
    assert done.returncode == (0 if data["answer"] is not None and data["confidence"] != 0 else 1)
    assert data["stop"] == "done"
    assert len(data["tree"]["nodes"]) == data["nodes"] > 4
