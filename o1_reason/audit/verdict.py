"""The audit in words."""

from dataclasses import dataclass

from .metrics import Area, FirstError
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
    gain, rival = trial.gain, "a majority vote" if trial.voted else "one at random"
    way = f"best-of-{trial.n}" if trial.vote == "none" else f"a vote of {trial.n} weighted by its scores"
    compared = (
        f"{way} gets {percent(trial.chosen.value)} of {trial.questions} questions right, "
        f"{rival} {percent(trial.baseline.value)} ({points(gain.value)} points, "
        f"95 % CI {points(gain.low)} to {points(gain.high)}, {p_value(trial.p)})"
    )
    if trial.p >= SURE:
        advice = "Take the vote, which needs no verifier, or audit" if trial.voted else "Audit"
        return Verdict(None, f"No difference is shown: {compared}. {advice} more questions.{_warning(trial)}")
    if gain.value < 0:
        return Verdict(False, f"Do not use it, {rival} is better: {compared}.")
    vote = f', vote="{trial.vote}"' if trial.vote != "none" else ""
    text = f"Worth using: {compared}.{_warning(trial)}"
    return Verdict(True, text, f'BestOfN(n={trial.n}, aggregate="{trial.aggregate}"{vote})')


def _warning(trial: Trial) -> str:
    """That the verifier's favourite is a bad choice, where only its vote is not."""
    last = trial.rows[-1]
    if trial.vote == "none" or last.p >= SURE or last.gain.value >= 0:
        return ""
    found = f"best-of-{last.n} gets {percent(last.best.value)}, {p_value(last.p)}"
    return f" Its favourite alone is the worse choice: {found}."


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def points(share: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * share:+.0f}"


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
