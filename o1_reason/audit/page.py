"""The audit as one self-contained HTML page: no script, nothing loaded from elsewhere."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from .metrics import Calibration
from .selection import Mean
from .summary import Audit
from .svg import Chart
from .tables import (
    ONE_REWARD_NOTE,
    RANKING_NOTE,
    calibration_note,
    calibrations,
    facts,
    interval,
    ranking_rows,
    trial_note,
    trial_rows,
)
from .trial import Trial
from .verdict import percent

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --rule: #d8dee4; --page: #fff;
  --any: #6e7781; --vote: #c2570c; --best: #0b69b7; --weighted: #0a7d55;
  --worth: #0a7d55; --not: #b42318; --open: #9a6700 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9da7b1; --rule: #373e47; --page: #14181d;
  --any: #9da7b1; --vote: #f0975a; --best: #62aef0; --weighted: #4fc499;
  --worth: #4fc499; --not: #ff8a7a; --open: #e3b341 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 2.2rem }
.verdict { font-size: 1.15rem; font-weight: 600; border-left: 4px solid; padding-left: .8rem }
.worth { color: var(--worth) } .not { color: var(--not) } .open { color: var(--open) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem }
dt, .note { color: var(--dim) } dd { margin: 0 }
.note { font-size: .87rem; max-width: 46rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th { color: var(--dim); font-weight: 500 } th, td { text-align: right; padding: .2rem .9rem .2rem 0 }
th:first-child, td:first-child { text-align: left } tbody tr { border-top: 1px solid var(--rule) }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0; flex: 1 1 20rem; min-width: 0; max-width: 29rem }
figcaption { font-size: .87rem; color: var(--dim) } svg { width: 100%; height: auto }
svg text { fill: var(--ink); font-size: 12px } svg .tick { fill: var(--dim); font-size: 11px }
.mid { text-anchor: middle } .end { text-anchor: end } .grid { stroke: var(--rule) }
.line { fill: none; stroke: currentColor; stroke-width: 2 } .dot, .bar { fill: currentColor } .bar { opacity: .55 }
.band { fill: currentColor; opacity: .13 } .line.any, .line.ideal { stroke-dasharray: 5 4 }
.any, .ideal { color: var(--any) } .vote, .mark { color: var(--vote) }
.best { color: var(--best) } .weighted { color: var(--weighted) }
.key { margin-right: 1rem; white-space: nowrap } .key::before { content: "●"; margin-right: .35rem }
"""


def render(audit: Audit) -> str:
    """The page, whole."""
    title = escape(f"Audit of the verifier {audit.verifier}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n" + "\n".join(_parts(audit)) + "\n</body></html>\n"
    )


def _parts(audit: Audit) -> Iterator[str]:
    kind = {True: "worth", False: "not", None: "open"}[audit.verdict.worth]
    yield f'<p class="verdict {kind}">{escape(audit.verdict.text)}</p>'
    yield "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in facts(audit)) + "</dl>"
    if audit.trial is not None:
        yield _section("Choosing one of n", trial_note(audit.trial), trial_rows(audit.trial), [curves(audit.trial)])
    note = RANKING_NOTE if audit.process else ONE_REWARD_NOTE
    yield _section(
        "Telling right from wrong", note, ranking_rows(audit), [roc_curve(audit)] if audit.chosen.auc else []
    )
    plots = [reliability(title, found) for title, found in calibrations(audit)]
    if plots:
        yield f'<h2>Is a score a probability?</h2><div class="charts">{"".join(plots)}</div>'


def _section(title: str, note: str, table: tuple[list[str], list[list[str]]], charts: Sequence[str]) -> str:
    head, rows = table
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h2>{escape(title)}</h2><div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody>'
        f'</table></div><p class="note">{escape(note)}</p><div class="charts">{"".join(charts)}</div>'
    )


def _figure(chart: Chart, caption: str) -> str:
    return f"<figure>{chart.render()}<figcaption>{caption}</figcaption></figure>"


def curves(trial: Trial) -> str:
    """Share of questions got right against n, for each way of choosing."""
    widest = math.log2(trial.n)
    at = [math.log2(row.n) / widest for row in trial.rows]
    chart = Chart(
        "share of questions right against n", "n solutions per question", "questions right",
        [(x, str(row.n)) for x, row in zip(at, trial.rows, strict=True)],
    )  # fmt: skip
    named: list[tuple[str, str, list[Mean]]] = [
        ("any", "any is right (oracle)", [row.any for row in trial.rows]),
        ("vote", "majority vote" if trial.voted else "at random", [row.vote for row in trial.rows]),
        ("weighted", "weighted vote", [row.weighted for row in trial.rows if row.weighted is not None]),
        ("best", "best-of-n", [row.best for row in trial.rows]),
    ]
    for kind, _, means in named:
        if means and kind != "any":
            lows = [(x, mean.low) for x, mean in zip(at, means, strict=True)]
            chart.band(lows, [(x, mean.high) for x, mean in zip(at, means, strict=True)], kind)
    for kind, name, means in named:
        if means:
            points = [(x, mean.value) for x, mean in zip(at, means, strict=True)]
            chart.line(points, kind)
            tips = [f"{name}, n = {row.n}: {interval(mean)} %" for row, mean in zip(trial.rows, means, strict=True)]
            chart.dots(points, kind, tips)
    keys = " ".join(f'<span class="key {kind}">{escape(name)}</span>' for kind, name, means in named if means)
    return _figure(chart, f"{keys}<br>Bands: 95 % intervals over questions.")


def roc_curve(audit: Audit) -> str:
    """Shares of right and wrong solutions above each threshold."""
    chart = Chart("ROC curve", "wrong solutions accepted", "right solutions accepted")
    chart.line([(0, 0), (1, 1)], "ideal")
    chart.line(audit.roc, "best")
    name = f'ROC of the score of a solution, aggregate="{audit.aggregate}"' if audit.process else "ROC"
    return _figure(chart, f"{escape(name)}: AUC {interval(audit.chosen.auc, 'area')}. Dashed: guessing.")


def reliability(title: str, found: Calibration) -> str:
    """Bars: share that is right per bin of the score; dots: mean score; both on the diagonal if calibrated."""
    chart = Chart(title, "score", "share that is right", [(k / 5, f"{k / 5:.1f}") for k in range(6)])
    for b in found.bins:
        tip = f"{b.low:.1f} to {b.high:.1f}: {b.n}, {percent(b.right)} right, mean score {b.score:.2f}"
        chart.bar(b.low, b.high, b.right, "best", tip)
    chart.line([(0, 0), (1, 1)], "ideal")
    tips = [f"{b.n} with mean score {b.score:.3f}, {percent(b.right)} right" for b in found.bins]
    most = max(b.n for b in found.bins)
    chart.dots([(b.score, b.right) for b in found.bins], "mark", tips, [b.n / most for b in found.bins])
    note = f"{title}. Bar: share that is right; dot: mean score, larger where there are more. {calibration_note(found)}"
    return _figure(chart, escape(note))
