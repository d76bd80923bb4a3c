"""The audit in words."""

from dataclasses import dataclass

from .metrics import Area, FirstError
from .selection import Mean
from .trial import Trial

SURE = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """`worth`: whether the verifier is worth using; None: the data do not tell. `text` says why, in plain words."""

    worth: bool | None
    text: str
    setting: str | None = None  # the strategy to use it with


def verdict_of(
    scored: int, trial: Trial | None, auc: Area | None, apart: float | None, first: FirstError | None, stop: str
) -> Verdict:
    """`auc` of the best aggregation, `apart` the same measured on solutions that had no part in its choice."""
    if not scored:
        return Verdict(None, f"Nothing was judged ({stop}): there is nothing to say.")
    if trial is not None:
        return _by_trial(trial)
    if auc is None or apart is None:
        return _by_steps(first)
    shown = f"an AUC of {apart:.2f} ({auc.low:.2f} to {auc.high:.2f})"
    if auc.low <= 0.5:
        return Verdict(
            False, f"Do not use it: it tells right solutions from wrong no better than chance, with {shown}."
        )
    return Verdict(
        None,
        f"It tells right solutions from wrong ones, with {shown}. Whether it beats a majority vote cannot be told: no "
        "question has several solutions here.",
    )


def _by_steps(first: FirstError | None) -> Verdict:
    if first is None:
        return Verdict(None, "Nothing to compare: no solution is labelled, or all are right, or all are wrong.")
    return Verdict(
        None,
        f"It finds the first wrong step with F1 {percent(first.f1)}. Whether it beats a majority vote cannot be told: "
        "that takes several solutions per question, and whether their answers are right.",
    )


def _by_trial(trial: Trial) -> Verdict:
    if not trial.mixed:
        return Verdict(None, "Nothing to choose: each question's solutions are all right or all wrong.")
    rival = "a majority vote" if trial.voted else "one at random"
    favourite, last = f"best-of-{trial.n}", trial.rows[-1]
    way = favourite if trial.vote == "none" else f"a vote of {trial.n} weighted by its scores"
    right = f"of {trial.questions} questions right, {rival} {percent(trial.baseline.value)}"
    found = f"{way} gets {percent(trial.chosen.value)} {right} ({_gain(trial.gain, trial.p)})"
    alone = f"{favourite} gets {percent(last.best.value)} {right} ({_gain(last.gain, last.p)})"
    harmful = last.p < SURE and last.gain.value < 0
    if trial.p < SURE and trial.gain.value > 0:
        vote = f', vote="{trial.vote}"' if trial.vote != "none" else ""
        caution = f" Not without the vote: {alone}." if harmful and vote else ""
        setting = f'BestOfN(n={trial.n}, aggregate="{trial.aggregate}"{vote})'
        return Verdict(True, f"Worth using: {found}.{caution}", setting)
    if trial.p < SURE:
        return Verdict(False, f"Do not use it, {rival} is better: {found}.")
    if harmful:
        return Verdict(False, f"Do not use it, {rival} is better: {alone}. Nor is it shown to help the vote: {found}.")
    advice = "Take the vote, which needs no verifier, or audit" if trial.voted else "Audit"
    return Verdict(None, f"No difference is shown: {found}. {advice} more questions.")


def _gain(gain: Mean, p: float) -> str:
    return f"{points(gain.value)} points, 95 % CI {points(gain.low)} to {points(gain.high)}, {p_value(p)}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def points(share: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * share:+.0f}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
