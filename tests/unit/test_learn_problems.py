import json

import pytest
from o1_reason_embedded import RuleVerifier

from o1_reason import ConfigurationError, Score, State, Step, Usage, VerifierError
from o1_reason.learn import GoldChecker, Problem, VerifierChecker, exclude, read_problems, write_parquet
from o1_reason.learn.problems import verdicts


def ended(answer, question="q"):
    return State(question, (Step("so", terminal=True, answer=answer),))


def write(path, *entries):
    path.write_text("\n".join(map(json.dumps, entries)) + "\n", encoding="utf-8")
    return path


def test_questions_and_gold_answers_are_read_from_json_lines(tmp_path):
    path = write(
        tmp_path / "problems.jsonl",
        {"question": "2 + 2?", "gold": 4},
        {"problem": "Half of 1?", "solution": r"It is $\boxed{\frac{1}{2}}$.", "level": "Level 1"},
        {"question": "GSM8K's?", "answer": "3 and 4 are <<3+4=7>>7.\n#### 7"},
        {"question": "Nobody knows?", "context": [{"role": "system", "content": "Think."}]},
    )
    assert list(read_problems(path)) == [
        Problem("2 + 2?", "4"),
        Problem("Half of 1?", r"\frac{1}{2}"),
        Problem("GSM8K's?", "7"),
        Problem("Nobody knows?", None, ({"role": "system", "content": "Think."},)),
    ]


def test_an_array_a_text_file_and_parquet_are_read_alike(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'o1-reason[learn]'")
    (tmp_path / "a.json").write_text('[{"question": "1 2 3 4"}, {"question": "5 5 5 1"}]')
    (tmp_path / "a.txt").write_text("1 2 3 4\n\n5 5 5 1\n")
    write_parquet([{"id": q, "question": q} for q in ("1 2 3 4", "5 5 5 1")], tmp_path / "a.parquet")
    for name in ("a.json", "a.txt", "a.parquet"):
        assert [problem.question for problem in read_problems(tmp_path / name)] == ["1 2 3 4", "5 5 5 1"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"text": "2 + 2?"}, 'line 1: "question" must be a text; the fields are: text'),
        ({"question": "q", "gold": ["4"]}, 'line 1: "gold" must be a text'),
        ({"question": "q", "context": "Think."}, 'line 1: "context" must be a list of messages'),
        (["q"], "line 1: an entry must be a JSON object"),
    ],
)
def test_what_cannot_be_read_is_named(entry, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        list(read_problems(write(tmp_path / "p.jsonl", entry)))


def test_no_file_and_no_json_are_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"question": "q"}\n{"quest\n')
    with pytest.raises(ConfigurationError, match="after line 1: this is no JSON"):
        list(read_problems(tmp_path / "p.jsonl"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read_problems(tmp_path / "none.jsonl"))


async def test_gold_answers_are_compared_as_mathematics_and_never_as_parts_of_words():
    problem, check = Problem("q", "1/2"), GoldChecker().check
    assert await check(problem, [ended(r"\frac{2}{4}"), ended("0.5"), ended("1/20"), ended("11/2"), ended(None)]) == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert await check(Problem("q", "42"), [ended("142"), ended("42.")]) == [False, True]


async def test_an_unfinished_state_is_not_right_and_without_gold_nothing_is_known():
    assert await GoldChecker().check(Problem("q", "4"), [State("q", (Step("4", answer="4"),)), State("q")]) == [
        False, False,
    ]  # fmt: skip
    assert await GoldChecker().check(Problem("q"), [ended("4")]) == [None]
    with pytest.raises(ConfigurationError, match="give the problem a gold answer"):
        await verdicts(GoldChecker(), Problem("q"), [ended("4")])


async def test_an_exact_verifier_checks_what_is_finished():
    checker, problem = VerifierChecker(RuleVerifier()), Problem("4 5 6 10")
    states = [ended("(10 - 4) * 5 - 6", "4 5 6 10"), ended("4 * 6", "4 5 6 10"), State("4 5 6 10")]
    assert await checker.check(problem, states) == [True, False, False]
    assert checker.identity == "embedded-rules"


async def test_a_verifier_that_calls_a_model_is_no_check():
    class Opinion:
        identity = "opinion"

        async def score(self, states):
            return [Score((1.0,), usage=Usage(1, 10, 10)) for _ in states]

    with pytest.raises(VerifierError, match="Opinion calls a model"):
        await VerifierChecker(Opinion()).check(Problem("q"), [ended("4")])


def test_held_out_questions_are_excluded_by_what_makes_them_the_same():
    problems = [Problem("Two  plus TWO?"), Problem("three?")]
    assert list(exclude(problems, ["two plus two?"])) == [Problem("three?")]
    sums = [Problem("1 2 3 4"), Problem("use 4, 3, 2, 1"), Problem("1 2 3 5")]
    digits = lambda question: tuple(sorted(c for c in question if c.isdigit()))  # noqa: E731
    assert list(exclude(sums, ["4 3 2 1"], digits)) == [Problem("1 2 3 5")]
