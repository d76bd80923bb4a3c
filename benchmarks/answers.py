r"""Extraction and equivalence of answers, on the training sets of GSM8K and MATH.

    python benchmarks/answers.py [--quick] [--data FOLDER]

FOLDER (../shared/data beside the checkout) holds gsm8k_train.jsonl (``question``, ``answer`` that ends in ``#### 72``)
and math_train_answers.json (``problem``, ``final_answer``).

    extraction    each solution with its ending rewritten in all the ways that models end theirs; right if what is
                  extracted is the label
    equivalence   each answer of MATH and what harmless rewritings make of it; and each answer and the next. Where
                  two answers are held equal, math-verify's own comparison has to agree
    time          of a key, and of what is meant never to end

Exits with 1 if a promise is broken.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from _report import Report

from o1_reason.answers import canonical, equivalent, extract_answer
from o1_reason.answers.mathematics import SECONDS, Worker

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
Rewriting = Callable[[str], str]

# Endings of a solution: body and label to text.


def _grouped(label: str) -> str:
    return f"{int(label):,}" if label.isdigit() else label


ENDINGS: dict[str, Callable[[str, str], str]] = {
    "#### X": lambda body, label: f"{body}\n#### {label}",
    "\\boxed{X}": lambda body, label: f"{body}\nThe answer is $\\boxed{{{label}}}$.",
    "\\boxed{X\\text{ dollars}}": lambda body, label: f"{body}\n\\boxed{{{label}\\text{{ dollars}}}}",
    "The answer is X.": lambda body, label: f"{body}\nThe answer is {label}.",
    "final answer is $X$. I hope": lambda body, label: (
        f"{body} So the final answer is ${label}$. I hope it is correct."
    ),
    "answer is X because": lambda body, label: f"{body}\nSo the answer is {label} because nothing else is left.",
    "Answer: X": lambda body, label: f"{body}\nAnswer: {label}",
    "**Final Answer:** X": lambda body, label: f"{body}\n\n**Final Answer:** {label}",
    "### Final Answer, next line": lambda body, label: f"{body}\n\n### Final Answer\n\n{label}",
    "A: X": lambda body, label: f"{body}\nA: {label}",
    "money, grouped": lambda body, label: f"{body}\nThe answer is ${_grouped(label)}.",
    "money, cents": lambda body, label: f"{body}\nAnswer: ${label}{'' if '.' in label else '.00'}",
    "units": lambda body, label: f"{body}\nThe answer is {label} clips.",
    "display": lambda body, label: f"{body}\nThe answer is:\n\\[ {label} \\]",
    "code block": lambda body, label: f"{body}\nAnswer:\n```\n{label}\n```",
    "JSON": lambda body, label: f"{body}\n" + json.dumps({"answer": label}),
    "JSON, number, fenced": lambda body, label: f'{body}\n```json\n{{"answer": {label}}}\n```',
    "JSON, whole reply": lambda body, label: json.dumps({"reasoning": body, "final_answer": label}),
}


def solutions(folder: Path) -> list[tuple[str, str]]:
    """Bodies and labels of GSM8K."""
    rows = [json.loads(line)["answer"] for line in (folder / "gsm8k_train.jsonl").read_text().splitlines()]
    pairs = [row.rsplit("####", 1) for row in rows]
    return [(body.rstrip(), label.strip().replace(",", "")) for body, label in pairs]


def wrong_extractions(ending: str, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str | None]]:
    """Labels, and what was extracted in their place."""
    found = [(label, extract_answer(ENDINGS[ending](body, label))) for body, label in pairs]
    return [(label, answer) for label, answer in found if answer is None or canonical(answer) != canonical(label)]


# Rewritings of an answer in LaTeX that leave it the same; what they do not apply to they leave alone.

_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|log|ln)|\\text|\\mbox|f\(")
_SCALAR = re.compile(r"[-+*/^(){}0-9.a-z ]|\\(?:d?frac|sqrt|pi)")  # all that a plain expression is made of
_GROUPED = re.compile(r"(?<=[0-9])(,\\!|\{,\}|,)(?=[0-9]{3}(?![0-9]))")


def _fractions(answer: str) -> str:
    swap = {"\\frac": "\\dfrac", "\\dfrac": "\\tfrac", "\\tfrac": "\\frac"}
    return re.sub(r"\\[dt]?frac", lambda m: swap[m[0]], answer)


def _delimiters(answer: str) -> str:
    if "\\left" in answer:
        return answer.replace("\\left", "").replace("\\right", "")
    plain = re.sub(r"(?<!\\)([(\[])", r"\\left\1", answer)
    return re.sub(r"(?<!\\)([)\]])", r"\\right\1", plain)


def _thin_spaces(answer: str) -> str:
    answer = re.sub(r"\s*\+\s*", r"\\,+\\;", answer)
    return re.sub(r"(?<=[0-9])\s*(?=\\(?:sqrt|pi|text|mbox)(?![a-z]))", r"\\,", answer)


def _blanks(answer: str) -> str:
    if _GROUPED.search(answer):
        return f" {answer} "
    return re.sub(r"\s*(?<!\\)([-+=()\[\],])\s*", r" \1 ", answer)


def _braces(answer: str) -> str:
    if "^{" in answer:
        return re.sub(r"\^\{([0-9]|\\circ)\}(?![0-9])", r"^\1", answer)
    return re.sub(r"\^([0-9a-z])", r"^{\1}", answer)


def _roots(answer: str) -> str:
    if "\\sqrt{" in answer:
        return re.sub(r"\\sqrt\{([0-9])\}", r"\\sqrt\1", answer)
    return re.sub(r"\\sqrt\s*([0-9])", r"\\sqrt{\1}", answer)


def _products(answer: str) -> str:
    if _FUNCTION.search(answer) or re.search(r"frac\s?[0-9]", answer):
        return answer
    return re.sub(r"(?<=[0-9}])(?=\\sqrt|\\pi|[a-df-z](?![a-z]))", r" \\cdot ", answer)


def _unicode(answer: str) -> str:
    for command, character in (("\\pi", "π"), ("\\infty", "∞"), ("\\cup", "∪"), ("^\\circ", "°"), ("-", "−")):
        answer = answer.replace(command, character)
    return answer


def _grouping(answer: str) -> str:
    if _GROUPED.search(answer) and canonical(answer).isdigit():
        return _GROUPED.sub("", answer)
    return f"{int(answer):,}" if re.fullmatch(r"[1-9][0-9]{3,}", answer) else answer


def _boxed(answer: str) -> str:
    return extract_answer(f"Adding up, we get $\\boxed{{{answer}}}$.") or ""


def _named(answer: str) -> str:
    plain = re.fullmatch(r"(?:[-0-9.,!\s(){}/]|\\(?:d?frac|sqrt|pi))+", answer)
    return f"t = {answer}" if plain else answer


def _sum(answer: str) -> str:
    """0 + (answer), which only mathematics sees through."""
    rest = _SCALAR.sub("", answer)
    words = re.search(r"[a-z]{3}", re.sub(r"\\[a-z]+", "", answer)) or re.fullmatch(r"[a-z]{2,}", answer)
    scalar = not rest and not words  # letters alone are a word, not a product
    return f"0+\\left({answer.strip().rstrip('.')}\\right)" if scalar and answer.strip() else answer


REWRITINGS: dict[str, Rewriting] = {
    "dollars around, full stop": lambda answer: f"${answer}$.",
    "\\frac, \\dfrac, \\tfrac": _fractions,
    "\\left and \\right": _delimiters,
    "thin spaces": _thin_spaces,
    "blanks": _blanks,
    "x^2, x^{2}": _braces,
    "\\sqrt3, \\sqrt{3}": _roots,
    "2x, 2 \\cdot x": _products,
    "Unicode": _unicode,
    "1,234, 1234": _grouping,
    "\\boxed and extracted": _boxed,
    "t = 5": _named,
    "0 + (x)": _sum,
}


def math_answers(folder: Path) -> list[str]:
    return [row["final_answer"] for row in json.loads((folder / "math_train_answers.json").read_text())]


def broken(rewriting: str, answers: Sequence[str]) -> tuple[int, list[tuple[str, str]]]:
    """How many answers the rewriting changes, and those that it makes another answer."""
    pairs = [(answer, REWRITINGS[rewriting](answer)) for answer in answers]
    changed = [pair for pair in pairs if pair[0] != pair[1]]
    return len(changed), [pair for pair in changed if not equivalent(*pair)]


def held_equal(answers: Sequence[str]) -> tuple[int, list[tuple[str, str]], list[tuple[str, str]]]:
    """How many neighbours differ in writing; those of them that are held equal; and those of these that math-verify's
    own comparison tells apart."""
    pairs = [(a, b) for a, b in pairwise(answers) if a.split() != b.split()]
    equal = [pair for pair in pairs if equivalent(*pair)]
    return len(pairs), equal, [pair for pair in equal if not _math_verify(*pair)]


def _math_verify(a: str, b: str) -> bool:
    from math_verify import parse, verify

    left, right = (parse(f"$\\boxed{{{answer}}}$", parsing_timeout=None) for answer in (a, b))  # type: ignore[arg-type]
    return verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None)


ENDLESS = (
    "10^{10^{10}}", "10^{10^{10^{10}}}", "(10^9)!", "((10!)!)!", "2^{3^{4^{5^6}}}", "9^{9^{9^{9^9}}}",
    "\\binom{10^9}{5\\cdot10^8}", "\\sum_{k=1}^{10^{12}}\\frac{1}{k^2+\\sin k}", "\\prod_{k=1}^{10^9}k",
    "\\int_0^1 x^{x^{x}}dx", "\\lim_{x\\to0}\\frac{\\sin(\\sin(\\sin(\\sin x)))}{x^{99}}", "(x+1)^{10^8}",
    "\\sqrt{" * 200 + "2" + "}" * 200, "(" * 900 + "1+x" + ")" * 900, "\\frac{1}{" * 150 + "x" + "}" * 150,
    "a" + "_a" * 600, "{" * 1900, "|" * 1900, "\\sin" * 400, "1" * 1900 + "+x", "x" + "^x" * 900,
    "\\begin{vmatrix}" + "\\\\".join("&".join("abcdefgh") for _ in range(8)) + "\\end{vmatrix}",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every tenth solution and answer")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the two files")
    options: Any = parser.parse_args()
    every = 10 if options.quick else 1
    report = Report()

    pairs = solutions(options.data)[::every]
    rows = []
    for ending in ENDINGS:
        wrong = wrong_extractions(ending, pairs)
        right = 1 - len(wrong) / len(pairs)
        rows.append([ending, str(len(pairs)), f"{right:.3%}"])
        report.promise(right >= 0.995, f"extraction, {ending}: {right:.3%}, bound 99.5 % {wrong[:3] or ''}")
    report.table("Extraction, GSM8K train", ("ending", "solutions", "right"), rows)

    answers = math_answers(options.data)
    some = sorted(set(answers))[::every]
    rows = []
    for rewriting in REWRITINGS:
        changed, other = broken(rewriting, some)
        rows.append([rewriting, str(changed), str(len(other))])
        report.promise(not other, f"equivalence, {rewriting}: {len(other)} of {changed} broken {other[:3] or ''}")
    report.table("Equivalence, MATH train", ("rewriting", "answers changed", "then another answer"), rows)
    differing, equal, wrong = held_equal(answers)
    report.promise(
        not wrong,
        f"neighbours: {len(equal)} of {differing} that differ in writing are held equal, {len(wrong)} of these not by"
        f" math-verify {wrong[:3] or ''}",
    )

    fresh = Worker()  # one that has seen none of them
    fresh.ask("key", "x+1")
    start = time.perf_counter()
    asked = [text for text in {canonical(answer) for answer in some} if not re.fullmatch(r"[-0-9/]+", text)]
    for text in asked:
        fresh.key(text)
    each = (time.perf_counter() - start) / len(asked)
    fresh.close()
    start = time.process_time()
    for answer in some:
        canonical(answer)
    rows = [
        ["a key by mathematics, ms", f"{each * 1e3:.2f}"],
        ["a normal form, us", f"{(time.process_time() - start) / len(some) * 1e6:.1f}"],
    ]
    worst = 0.0
    for text in ENDLESS:
        start = time.perf_counter()
        equivalent(text, "1+x")
        worst = max(worst, time.perf_counter() - start)
    rows.append(["the longest of what is meant never to end, s", f"{worst:.1f}"])
    report.table("Time", ("", ""), rows)
    report.promise(
        worst < SECONDS + 5, f"the longest comparison took {worst:.1f} s, bound {SECONDS} s and a new process"
    )
    report.exit()


if __name__ == "__main__":
    main()
