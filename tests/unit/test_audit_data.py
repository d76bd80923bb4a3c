import json

import pytest

from o1_reason import ConfigurationError
from o1_reason.audit import Truth, read_solutions
from o1_reason.audit.data import settled


@pytest.fixture
def read(tmp_path):
    """Solutions from entries, or from a text as it stands."""

    def write(*entries, text=None, limit=None):
        path = tmp_path / "file.jsonl"
        path.write_text("\n".join(map(json.dumps, entries)) if text is None else text, encoding="utf-8")
        return list(read_solutions(path, limit))

    return write


def test_our_own_form_is_read_whole(read):
    (found,) = read(
        {"question": "2 + 2?", "steps": ["2 + 2 is 4", "4"], "answer": "4", "key": "four", "gold": "4.0",
         "correct": True, "labels": [True, None], "group": 7}
    )  # fmt: skip
    first, last = found.state.steps
    assert (found.state.question, first.text, first.terminal) == ("2 + 2?", "2 + 2 is 4", False)
    assert (last.text, last.terminal, last.answer, last.key) == ("4", True, "4", "four")
    assert found.truth == Truth(1, "7", "4", "four", "4.0", True, (True, None))


def test_question_and_steps_are_enough(read):
    (found,) = read({"question": "q", "steps": ["so x = 3", "The answer is 3."]})
    assert found.truth == Truth(1, "q", "3")
    assert found.state.steps[-1].answer == "3"


def test_an_answer_is_looked_for_in_the_last_step_and_then_in_all(read):
    (found,) = read({"question": "q", "steps": ["Answer: 3", "That was easy."]})
    assert (found.truth.answer, found.state.steps[-1].terminal) == ("3", True)


def test_numbers_may_stand_for_answers(read):
    (found,) = read({"question": "q", "steps": ["s"], "answer": 42, "gold": 42.5, "correct": 0})
    assert (found.truth.answer, found.truth.gold, found.truth.correct) == ("42", "42.5", False)


@pytest.mark.parametrize(
    ("first", "labels"), [(1, (True, False, None)), (0, (False, None, None)), (-1, (True, True, True))]
)
def test_after_a_first_error_nothing_is_known(read, first, labels):
    (found,) = read({"question": "q", "steps": ["a", "b", "c"], "first_error": first})
    assert (found.truth.labels, found.truth.first_error) == (labels, first)


@pytest.mark.parametrize(
    ("labels", "first"),
    [
        ((), None),
        ((True, True), -1),
        ((True, False), 1),
        ((None, False), None),
        ((True, None), None),
        ((False, True), 0),
    ],
)
def test_the_first_error_follows_from_labels_where_they_tell(labels, first):
    assert Truth(1, "g", labels=labels).first_error == first


def test_process_bench_is_read(read):
    entry = {
        "id": "gsm8k-0", "generator": "Qwen2-7B-Instruct", "problem": "p", "steps": ["a", "so \\boxed{3}"],
        "final_answer_correct": True, "label": 0,
    }  # fmt: skip
    (found,) = read(entry)
    assert found.state.question == "p"
    assert found.truth == Truth(1, "p", "3", None, None, True, (False, None))


def test_process_bench_is_read_as_the_one_array_that_it_is_distributed_as(read):
    entry = {"problem": "p", "steps": ["a"], "final_answer_correct": False, "label": -1}
    found = read(text=json.dumps([entry, {**entry, "problem": "q"}], indent=2))
    assert [(one.state.question, one.truth.line) for one in found] == [("p", 1), ("q", 2)]


def test_stepwise_supervision_is_read_and_may_stop_at_an_error(read):
    cut, whole = read(
        {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
        {"prompt": "p", "completions": ["a", "# Answer\n\nAnswer: 3"], "labels": [1, 0]},
    )
    assert (cut.truth.labels, cut.truth.correct, cut.truth.answer) == ((True, False), None, None)
    assert not cut.state.steps[-1].terminal
    assert (whole.state.steps[-1].terminal, whole.truth.answer, whole.truth.labels) == (True, "3", (True, False))


def test_blank_lines_and_a_byte_order_mark_are_skipped_and_lines_keep_their_numbers(read):
    text = '\ufeff{"question": "q", "steps": ["a"]}\n\n{"question": "r", "steps": ["a"]}\n'
    assert [one.truth.line for one in read(text=text)] == [1, 3]


def test_a_limit_reads_no_further(read):
    text = '{"question": "q", "steps": ["a"]}\nnonsense'
    assert len(read(text=text, limit=1)) == 1


OWN = {"question": "q", "steps": ["a", "b"]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["a"], "an entry must be a JSON object; got"),
        ({"q": 1}, 'there is no "question" .* the fields are: q'),
        ({**OWN, "question": "  "}, 'question must be a text; got "  "'),
        ({**OWN, "question": 3}, "question must be a text; got 3"),
        ({"question": "q"}, "steps must be a list of texts, one a step, and at least one; got nothing"),
        ({**OWN, "steps": []}, r"steps must be a list of texts.*; got \[\]"),
        ({**OWN, "steps": "abc"}, "steps must be a list of texts"),
        ({**OWN, "steps": ["a", 1]}, "steps must be a list of texts"),
        ({**OWN, "labels": [True]}, r"labels must be a list of 2, one for each step; got \[true\]"),
        ({**OWN, "labels": [True, 0.7]}, r"labels\[1\] must be true, false, or null for unknown; got 0.7"),
        ({**OWN, "labels": [True, "+"]}, r'labels\[1\] must be .*; got "\+"'),
        (
            {**OWN, "first_error": 2},
            "first_error must be the index of the first wrong of 2 steps, from 0, or -1; g",
        ),
        ({**OWN, "first_error": -2}, "first_error must be the index"),
        ({**OWN, "first_error": True}, "first_error must be the index .*; got true"),
        ({**OWN, "first_error": 0, "labels": [False, None]}, 'first_error must be left out where there is "labels"'),
        ({**OWN, "correct": "yes"}, 'correct must be true or false; got "yes"'),
        ({**OWN, "answer": ["4"]}, r'answer must be a text; got \["4"\]'),
        ({**OWN, "gold": True}, "gold must be a text; got true"),
        ({**OWN, "group": {}}, "group must be a text"),
        ({"problem": "p", "steps": ["a"]}, "label must be the index of the first wrong of 1 steps"),
        (
            {"problem": "p", "steps": ["a"], "label": 0, "final_answer_correct": 3},
            "final_answer_correct must be true",
        ),
        ({"prompt": "p", "steps": ["a"]}, "completions must be a list of texts"),
        ({"prompt": [{"role": "user"}], "completions": ["a"]}, "prompt must be a text; got"),
    ],
)
def test_an_error_names_file_line_and_field(read, entry, message):
    with pytest.raises(ConfigurationError, match=rf"file\.jsonl, line 2: {message}"):
        read(OWN, entry)


@pytest.mark.parametrize("text", ["{", '{"question": "q"} x', "[1, 2", "[" * 100_000, "nul"])
def test_what_is_no_json_is_refused(read, text):
    with pytest.raises(ConfigurationError, match=r"file\.jsonl, line 1: this is no JSON"):
        read(text=text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin").write_bytes(b'{"question": "\xe9"}')
    for name in ("nowhere", "latin"):
        with pytest.raises(ConfigurationError, match=r"cannot be read .* give a file of JSON lines"):
            list(read_solutions(tmp_path / name))


async def test_answers_are_compared_as_mathematics_and_against_gold():
    a, b, c, d = await settled(
        [
            Truth(1, "g", "1/2", gold="0.5"),
            Truth(2, "g", "\\frac{2}{4}", gold="0.25"),
            Truth(3, "g", None, gold="0.5"),
            Truth(4, "g", "0.5"),
        ]
    )
    assert (a.correct, b.correct, c.correct, d.correct) == (True, False, False, None)
    assert a.key == b.key == d.key != c.key is None


async def test_what_the_file_says_goes_before_what_can_be_worked_out():
    a, b = await settled([Truth(1, "g", "2 * 12", "by product", "24", False), Truth(2, "g", "24", "24")])
    assert (a.key, a.correct, b.key) == ("by product", False, "24")
