"""A run of the learning loop as one self-contained HTML page: no script, no right to load anything."""

import math
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import Any

from ..audit.metrics import Area
from ..audit.page import STYLE, _figure, _section, reliability
from ..audit.selection import Mean
from ..audit.svg import Chart
from ..audit.tables import interval
from ..audit.verdict import percent
from .evaluate import Judged, Point
from .gate import Comparison
from .record import GATES, Record, Round

Table = tuple[list[str], list[list[str]]]
ROLES = {"prm": "reward model", "policy": "policy"}

WIDE = "body { max-width: 66rem }\n"

ROUNDS_NOTE = (
    "Shares of test problems, in %, with 95 % intervals over problems, of the policy and the reward model in force "
    "after each round. Nothing is decided by these figures. AUC and ECE: of the reward model's scores against the "
    "truth about the states of sampled solutions; 1 and 0 are best."
)
GATES_NOTE = (
    "A candidate is accepted if p, the chance of doing as well if it were no better, is at most the level. Both sides "
    "answer the same held-out problems with the same seeds and token budget. The level is alpha, halved for every "
    "earlier gate that has used some of the problems. better, worse: problems that the candidate got right more often, "
    "less often. Both tests, McNemar's of single tries and sign flips of several, are exact."
)
TOKENS_NOTE = "Per search, prompts and verifier included: accuracy, and in brackets the tokens that were used."
DATA_NOTE = "Rows of training data. right: searches that chose a right answer. Seeds decide all that is drawn."


def render(record: Record) -> str:
    """The page, whole. Raises ConfigurationError where there is no run."""
    settings, rounds = record.settings, record.rounds()
    measured = [each for each in rounds if each.finished]
    style = STYLE + WIDE + colours(len(measured))
    policy = f"default-src 'none'; style-src '{_hash(style)}'; base-uri 'none'; form-action 'none'"
    title = escape(f"Learning run: {settings['learner']}, {settings['scale']}, seed {settings['seed']}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(_parts(settings, rounds, measured, record.undone()))
        + "\n</body></html>\n"
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def colours(n: int) -> str:
    """A colour of each of `n` rounds, from blue to red; the beginning is grey."""
    hues = [220 + round(160 * k / max(1, n - 2)) for k in range(n - 1)]
    later = [f".r{k + 1} {{ color: hsl({hue % 360} 65% 48%) }}" for k, hue in enumerate(hues)]
    return "\n".join([".r0 { color: var(--any) }", *later]) + "\n"


def _parts(
    settings: Mapping[str, Any], rounds: Sequence[Round], measured: Sequence[Round], undone: Sequence[Round]
) -> Iterator[str]:
    yield f'<p class="verdict best">{escape(summary(measured))}</p>'
    if undone:
        yield f'<p class="note">Rolled back: {escape(", ".join(each.folder.name for each in undone))}.</p>'
    if not measured:
        return
    yield _section("Rounds", ROUNDS_NOTE, rounds_table(measured), [])
    yield _section("Accuracy against tokens", TOKENS_NOTE, tokens_table(measured), [curves(measured)])
    if any(GATES[role] in each.stages for each in rounds for role in ROLES):
        yield _section("Gates", GATES_NOTE, gates_table(rounds), [])
    plots = [
        reliability(f"Reward model {'of the beginning' if not each.number else f'after round {each.number}'}", one)
        for each in measured
        if each.number == 0 or each.accepted("prm")
        for one in [judged(each).calibration]
    ]
    yield f'<h2>Is a score a probability?</h2><div class="charts">{"".join(plots)}</div>'
    if len(rounds) > 1:
        yield _section("Data and seeds", DATA_NOTE, data_table(rounds), [])
    yield _section("Seconds", "What each stage took.", times_table(rounds), [])
    yield _section("Weights", "sha256 of the files in force.", weights_table(measured), [])
    plan = {name: value for name, value in settings["plan"].items() if value not in ({}, [])}
    shown = ", ".join(f"{name} {value}" for name, value in plan.items())
    yield f'<p class="note">Plan: {escape(shown)}.</p>'
    if start := settings.get("start"):
        yield f'<p class="note">It began with the weights in {escape(start["folder"])}.</p>'


def points(each: Round) -> list[Point]:
    """Accuracy at each budget."""
    return [Point.from_data(one) for one in each.stages["measure"]["curve"]]


def greedy(each: Round) -> Point:
    return Point.from_data(each.stages["measure"]["greedy"])


def judged(each: Round) -> Judged:
    return Judged.from_data(each.stages["measure"]["prm"])


def verdict(each: Round, role: str) -> Comparison | None:
    """What the gate of "policy" or "prm" said; None: it was not asked yet."""
    found = each.stages.get(GATES[role])
    return None if found is None else Comparison.from_data({name: found[name] for name in Comparison.__slots__})


def summary(measured: Sequence[Round]) -> str:
    """What the run has come to, in a line."""
    if not measured:
        return "Nothing is measured yet."
    first, last = measured[0], measured[-1]
    gates = [found for each in measured for role in ROLES if (found := verdict(each, role))]
    before, after = points(first)[-1], points(last)[-1]
    if first is last:
        return f"The beginning: greedy {_share(greedy(first))}, searched {_share(before)} at {before.budget} tokens."
    return (
        f"After {last.number} round{'s' * (last.number > 1)}: greedy {_share(greedy(first))} to "
        f"{_share(greedy(last))}, searched with {after.budget} tokens {_share(before)} to {_share(after)}; "
        f"{sum(gate.accepted for gate in gates)} of {len(gates)} candidates were accepted."
    )


def _share(point: Point) -> str:
    return percent(point.accuracy.value)


def rounds_table(measured: Sequence[Round]) -> Table:
    """One row a round: decisions, accuracy greedy and searched at the largest budget, the reward model, time."""
    most = points(measured[-1])[-1].budget
    head = ["round", "reward model", "policy", "greedy", f"search, {most} tokens", "used", "AUC", "ECE", "time"]
    rows = []
    for each in measured:
        last, found = points(each)[-1], judged(each)
        rows.append(
            [
                str(each.number or "begin"),
                *(_decision(verdict(each, role)) for role in ROLES),
                interval(greedy(each).accuracy),
                interval(last.accuracy) if last.budget == most else f"{interval(last.accuracy)} at {last.budget}",
                f"{last.tokens:.0f}",
                _auc(found.auc),
                f"{found.calibration.ece:.3f}",
                duration(each.seconds),
            ]
        )
    return head, rows


def tokens_table(measured: Sequence[Round]) -> Table:
    budgets = sorted({point.budget for each in measured for point in points(each) if point.budget is not None})
    rows = []
    for each in measured:
        by = {point.budget: point for point in points(each)}
        rows.append([str(each.number or "begin"), *(_at(by.get(budget)) for budget in budgets)])
    return ["round", *(f"at most {budget}" for budget in budgets)], rows


def _at(point: Point | None) -> str:
    return "–" if point is None else f"{percent(point.accuracy.value)} ({point.tokens:.0f})"


def _auc(area: Area | None) -> str:
    return "–" if area is None else f"{area.value:.3f} ± {(area.high - area.low) / 2:.3f}"


def _decision(found: Comparison | None) -> str:
    return "–" if found is None else f"{'new' if found.accepted else 'kept'}, p {p_text(found.p)}"


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def duration(seconds: float) -> str:
    """As a person would say it."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def gates_table(rounds: Sequence[Round]) -> Table:
    head = ["candidate", "decision", "p", "level", "new", "old", "difference, points", "better, worse",
            "problems", "tokens, new : old"]  # fmt: skip
    rows = []
    for each in rounds:
        for role, name in ROLES.items():
            one = verdict(each, role)
            if one is not None:
                rows.append(
                    [
                        f"{name} {each.number}",
                        "accepted" if one.accepted else "rejected",
                        p_text(one.p),
                        f"{one.alpha:.2g}",
                        percent(one.candidate),
                        percent(one.incumbent),
                        interval(Mean(one.difference, one.low, one.high), "points"),
                        f"{one.better}, {one.worse}",
                        f"{one.problems} × {one.tries}",
                        f"{one.tokens[0]:.1f} : {one.tokens[1]:.1f} of {one.budget}",
                    ]
                )
    return head, rows


def data_table(rounds: Sequence[Round]) -> Table:
    names = {"traces.jsonl": "searches", "steps.jsonl": "labelled solutions", "policy.jsonl": "for the policy"}
    head = ["round", *names.values(), "right", "seed of the search", "of reward model", "of policy"]
    rows = []
    for each in rounds[1:]:
        stages = each.stages
        counts = {**stages.get("collect", {}).get("rows", {}), **stages.get("label", {}).get("rows", {})}
        right = stages.get("collect", {}).get("right", "–")
        seeds = [str(stages.get(name, {}).get("seed", "–")) for name in ("collect", "train_prm", "train_policy")]
        rows.append([str(each.number), *(str(counts.get(name, "–")) for name in names), str(right), *seeds])
    return head, rows


def times_table(rounds: Sequence[Round]) -> Table:
    order = list(dict.fromkeys(name for each in (rounds[0], rounds[-1]) for name in each.order))
    order.sort(key="measure".__eq__)
    rows = [
        [
            str(each.number or "begin"),
            *(f"{each.stages[name]['seconds']:.1f}" if name in each.stages else "–" for name in order),
            f"{each.seconds:.1f}",
        ]
        for each in rounds
    ]
    return ["round", *(name.replace("_", " ") for name in order), "all"], rows


def weights_table(measured: Sequence[Round]) -> Table:
    names = list(dict.fromkeys(name for each in measured for name in each.stages["measure"]["files"]))
    rows = [
        [str(each.number or "begin"), *(each.stages["measure"]["files"].get(name, "–")[:16] for name in names)]
        for each in measured
    ]
    return ["round", *(name.removeprefix("weights/") for name in names)], rows


def curves(measured: Sequence[Round]) -> str:
    """Accuracy against the tokens that searches used, each round a line."""
    lines = [(f"r{k}", each, points(each)) for k, each in enumerate(measured)]
    used = [point.tokens for _, _, line in lines for point in line]
    low, high = math.log2(max(1.0, min(used)) * 0.9), math.log2(max(2.0, max(used)) * 1.1)

    def at(tokens: float) -> float:
        return (math.log2(max(1.0, tokens)) - low) / (high - low)

    ticks = [(at(n), f"{n:,}") for n in round_numbers(2**low, 2**high)]
    chart = Chart("accuracy against tokens", "tokens used per search", "test problems right", ticks)
    for kind, _, line in {0: lines[0], len(lines): lines[-1]}.values():
        chart.band(
            [(at(point.tokens), point.accuracy.low) for point in line],
            [(at(point.tokens), point.accuracy.high) for point in line],
            kind,
        )
    for kind, each, line in lines:
        spots = [(at(point.tokens), point.accuracy.value) for point in line]
        chart.line(spots, kind)
        tips = [f"round {each.number}, {p.tokens:.0f} of {p.budget} tokens: {interval(p.accuracy)} %" for p in line]
        chart.dots(spots, kind, tips)
    keys = " ".join(
        f'<span class="key {kind}">{f"round {each.number}" if each.number else "begin"}</span>'
        for kind, each, _ in lines
    )
    return _figure(chart, f"{keys}<br>Bands: 95 % intervals over problems, of the first and the last line.")


def round_numbers(low: float, high: float) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... between them; where there are more than seven, 1, 10, 100, ..."""
    found = [m * 10**e for e in range(12) for m in (1, 2, 5) if low <= m * 10**e <= high]
    return found if len(found) <= 7 else [n for n in found if str(n)[0] == "1"]
