from dataclasses import replace
from types import SimpleNamespace

import pytest
from browser import CHROMIUM, browser
from sums import Learner
from test_audit_reports import Balanced
from test_rounds import PLAN

from o1_reason.errors import ConfigurationError
from o1_reason.learn.plan import Plan
from o1_reason.learn.record import Record
from o1_reason.learn.report import duration, gates_table, p_text, render, round_numbers, rounds_table, tokens_table
from o1_reason.learn.rounds import improve, rollback


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    improve(path, 2, learner=Learner(), scale="<any>", plan=PLAN)
    return Record(path)


def test_the_page_is_complete_in_itself_and_says_what_was_measured(record):
    page = render(record)
    text = Balanced(page).text
    rounds = record.rounds()
    for each in rounds:
        measured = each.stages["measure"]
        assert f"{measured['prm']['calibration']['ece']:.3f}" in text
        assert f"{100 * measured['greedy']['accuracy']['value']:.0f} (" in text
        assert each.stages["measure"]["files"]["weights/policy.json"][:16] in text
        for name in ("gate_prm", "gate_policy"):
            if name in each.stages:
                assert p_text(each.stages[name]["p"]) in text
        for stage in each.stages.values():
            assert f"{stage['seconds']:.1f}" in text
    assert "Learning run: Learner, <any>, seed 0" in text
    assert page.count("<svg") == 2 + sum(bool(each.accepted("prm")) for each in rounds)
    assert "script" not in page


def test_the_rounds_table_holds_the_figures_of_the_record(record):
    head, rows = rounds_table(record.rounds())
    assert head == ["round", "reward model", "policy", "greedy", "search, 80 tokens", "used", "AUC", "ECE", "time"]
    assert [row[0] for row in rows] == ["begin", "1", "2"]
    for row, each in zip(rows, record.rounds(), strict=True):
        last = each.stages["measure"]["curve"][-1]
        assert row[4].startswith(f"{100 * last['accuracy']['value']:.0f} (")
        assert row[5] == f"{last['tokens']:.0f}"
        assert row[6].startswith(f"{each.stages['measure']['prm']['auc']['value']:.3f} ±")
        if each.number:
            assert row[1].startswith("new" if each.accepted("prm") else "kept")


def test_every_gate_has_its_row(record):
    head, rows = gates_table(record.rounds())
    assert [row[0] for row in rows] == ["reward model 1", "policy 1", "reward model 2", "policy 2"]
    first = record.rounds()[1].stages["gate_prm"]
    found = dict(zip(head, rows[0], strict=True))
    assert found["better, worse"] == f"{first['better']}, {first['worse']}"
    assert found["problems"] == f"{PLAN.gate_problems} × 2"
    assert found["tokens, new : old"] == f"{first['tokens'][0]:.1f} : {first['tokens'][1]:.1f} of 40"


def test_a_round_that_is_not_finished_shows_what_it_has(record, tmp_path):
    path = tmp_path / "run"
    improve(path, 0, learner=Learner(), scale="<any>", plan=PLAN)

    class Stop(Learner):
        def train_policy(self, *arguments, **named):
            raise ConfigurationError("stop")

    with pytest.raises(ConfigurationError, match="stop"):
        improve(path, 1, learner=type("Learner", (Stop,), {})(), scale="<any>", plan=PLAN)
    text = Balanced(render(Record(path))).text
    assert "The beginning: greedy" in text
    assert "reward model 1" in text
    assert "policy 1" not in text


def test_what_was_rolled_back_and_other_budgets_are_told(tmp_path):
    path = tmp_path / "run"
    improve(path, 1, learner=Learner(), scale="s", plan=PLAN)
    rollback(path, 0)
    improve(path, 1, learner=Learner(), scale="s", plan=replace(PLAN, measure_tokens=(30,)))
    record = Record(path)
    assert "Rolled back: 001-1." in Balanced(render(record)).text
    head, rows = tokens_table(record.rounds())
    assert head == ["round", "at most 20", "at most 30", "at most 40", "at most 80"]
    assert [[cell == "–" for cell in row] for row in rows] == [
        [False, False, True, False, False],
        [False, True, False, True, True],
    ]


def test_without_a_run_there_is_no_report(tmp_path):
    with pytest.raises(ConfigurationError, match="o1-reason improve"):
        render(Record(tmp_path))


def test_names_of_others_cannot_break_the_page(record, tmp_path):
    evil = "<script>alert(1)</script>"
    settings = {"learner": evil, "scale": evil, "seed": evil, "plan": {**Plan().to_data(), "label": evil}}
    page = render(SimpleNamespace(settings=settings, rounds=record.rounds, undone=record.undone))  # type: ignore[arg-type]
    assert "script" not in Balanced(page).tags


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
async def test_in_a_browser_it_shows_in_style_and_may_load_and_run_nothing(record, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(render(record), encoding="utf-8")
    async with browser(tmp_path / "profile") as page:
        await page.open(file)
        assert await page.run("getComputedStyle(document.body).maxWidth") == "1056px", "its own style is allowed"
        lines = "[...document.querySelectorAll('polyline')].map(e => getComputedStyle(e).stroke)"
        colours = await page.run(lines)
        assert len(set(colours[:3])) == 3, "each round its colour"
        wide = await page.run("[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)")
        assert max(wide) <= 0, "no table is cut off"
        assert page.said("Log.entryAdded", "Runtime.exceptionThrown") == []
        await page.run(
            """new Promise(done => { window.refused = [];
            document.addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective));
            const script = document.createElement('script'); script.textContent = 'window.hacked = 1';
            const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x.png';
            document.body.append(script, image); setTimeout(done, 200); })"""
        )
        assert sorted(await page.run("refused")) == ["img-src", "script-src-elem"]
        asked = [event["params"]["request"]["url"] for event in page.said("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith("http://127.0.0.1:9/")] == [file.as_uri()]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.31, "0.3 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7321, "2 h 02 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_ticks_are_round_numbers_and_not_too_many():
    assert round_numbers(18, 130) == [20, 50, 100]
    assert round_numbers(1, 20_000) == [1, 10, 100, 1000, 10_000]
