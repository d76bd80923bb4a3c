"""What every report of an audit says alike: lines, notes, and the rows of tables."""

from collections.abc import Iterator

from .metrics import Area, Calibration
from .selection import Mean
from .summary import Audit
from .trial import Trial
from .verdict import p_value, percent, points

RANKING_NOTE = (
    "AUC: chance that a right one scores above a wrong one; 0.5 is guessing. within: the same among solutions of one "
    "question. ECE, Brier: error of the score taken as a probability; 0 is best."
)
ONE_REWARD_NOTE = (
    RANKING_NOTE + " The verifier gives one reward per solution: aggregations are all the same, and steps and first "
    "errors are not judged (--prefixes has it judge every step, at a call or more for each)."
)


def facts(audit: Audit) -> Iterator[tuple[str, str]]:
    """The lines under the verdict: name and value."""
    if audit.verdict.setting:
        yield "use", audit.verdict.setting
    right = "outcome unknown" if audit.right is None else f"{percent(audit.right)} right"
    yield "solutions", f"{audit.solutions} of {audit.questions} questions, {right}"
    if audit.first_error is not None:
        first = audit.first_error
        how = "chosen on other questions than it is measured on" if audit.threshold_chosen else "given"
        yield (
            "first error",
            f"F1 {percent(first.f1)}: {percent(first.error_accuracy)} of {first.erroneous} solutions with an error, "
            f"{percent(first.correct_accuracy)} of {first.correct} without; threshold {first.threshold:.2f}, {how}",
        )
    yield "cost", cost(audit)
    for kind, count, example in audit.failures:
        text = " ".join(example.split())
        yield (
            "failed",
            f"{count} got no score and are never chosen: {kind} ({text if len(text) < 160 else text[:157] + '...'})",
        )
    if audit.unreadable:
        yield "unreadable", f"{audit.unreadable} replies, asked again or left out of a mean"
    if audit.left_out:
        yield "left out", f"{audit.left_out} solutions: the {audit.stop} ran out; with --ledger, run again to go on"
    if audit.warning:
        yield "warning", audit.warning


def cost(audit: Audit) -> str:
    """Per solution, what was replayed counted as what it once cost."""
    use, n = audit.cost.usage, max(audit.solutions, 1)
    calls = f"{use.calls / n:.3g}"
    parts = [f"{calls} call{'' if calls == '1' else 's'}", f"{use.tokens / n:.3g} tokens"]
    if use.cost_usd is not None:
        parts.append(f"${use.cost_usd / n:.2g}")
    if audit.cost.seconds is not None:
        seconds = audit.cost.seconds
        parts.append(f"{seconds:.3g} s of waiting" if seconds >= 1 else f"{1000 * seconds:.2g} ms of waiting")
    paid = audit.cost.paid
    dollars = "" if paid.cost_usd is None else f", ${paid.cost_usd:.4f}"
    replayed = f", {audit.cost.replayed} solutions from the ledger" if audit.cost.replayed else ""
    return (
        f"{', '.join(parts)} per solution; this run: {paid.calls} calls, {paid.tokens} tokens{dollars}, "
        f"{audit.cost.wall:.1f} s{replayed}"
    )


def trial_note(trial: Trial) -> str:
    note = f"Shares of {trial.questions} questions got right, in %, and 95 % intervals over questions. "
    if trial.fewer:
        note += f"{trial.fewer} questions have fewer than {trial.n} solutions and are left out. "
    note += f"Right and wrong ones to choose from: {trial.mixed} questions. "
    if len({aggregate for _, aggregate, _ in trial.in_sample}) > 1:
        note += "The aggregation is chosen on other questions than it is measured on. "
    if trial.voted:
        note += "vote: by majority, weighted: by sums of scores. "
    return note + "any: the oracle, one of the n is right."


def calibrations(audit: Audit) -> Iterator[tuple[str, Calibration]]:
    """Title and figures of each reliability plot."""
    if audit.chosen.calibration is not None:
        name = f', aggregate="{audit.aggregate}"' if audit.process else ""
        yield f"Reliability of the score of a solution{name}", audit.chosen.calibration
    if audit.steps is not None and audit.steps.calibration is not None:
        yield "Reliability of the reward of a step", audit.steps.calibration


def calibration_note(found: Calibration) -> str:
    return (
        f"ECE {found.ece:.3f} ({found.adaptive:.3f} with bins of equal numbers), Brier {found.brier:.3f}; always "
        f"saying the base rate has {found.base_brier:.3f}."
    )


def interval(mean: Mean | Area | None, form: str = "percent") -> str:
    """Value and interval; a dash where there is none."""
    if mean is None:
        return "–"
    if form == "percent":
        return f"{100 * mean.value:.0f} ({100 * mean.low:.0f}–{100 * mean.high:.0f})"
    if form == "points":
        return f"{points(mean.value)} ({points(mean.low)} to {points(mean.high)})"
    return f"{mean.value:.3f} ({mean.low:.3f}–{mean.high:.3f})"


def trial_rows(trial: Trial) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of best-of-n."""
    vote = "vote" if trial.voted else "at random"
    head = ["n", "any", vote, "best-of-n", *(["weighted"] if trial.voted else []), f"best-of-n − {vote}", "p"]
    rows = [
        [
            str(row.n), interval(row.any), interval(row.vote), interval(row.best),
            *([interval(row.weighted)] if trial.voted else []), interval(row.gain, "points"),
            p_value(row.p).removeprefix("p").removeprefix(" = ").strip(),
        ]
        for row in trial.rows
    ]  # fmt: skip
    return head, rows


def ranking_rows(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of aggregations."""
    head = ["", "AUC", "within", "ECE", "Brier"]
    rows = []
    worths = {(vote, aggregate): worth for vote, aggregate, worth in audit.trial.in_sample} if audit.trial else {}
    for one in audit.aggregations:
        found = one.calibration
        row = [one.aggregate if audit.process else "solution", interval(one.auc, "area")]
        row += [_number(one.within), _number(found and found.ece), _number(found and found.brier)]
        row += [
            percent(worths[vote, one.aggregate]) for vote in ("none", "weighted") if (vote, one.aggregate) in worths
        ]
        rows.append(row)
    if audit.trial is not None:
        head += [f"best-of-{audit.trial.n}", *(["weighted"] if audit.trial.voted else [])]
    if audit.steps is not None:
        found = audit.steps.calibration
        row = ["single steps", interval(audit.steps.auc, "area"), "–", _number(found and found.ece)]
        rows.append([*row, _number(found and found.brier), *["–"] * (len(head) - 5)])
    return head, rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
