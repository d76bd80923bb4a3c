"""Importers on short entries typed after the formats' documentation, each with what converters get wrong in it."""

import json

import pytest

from o1_reason import ConfigurationError
from o1_reason.learn import read_math_aps, read_math_shepherd, read_prm800k


@pytest.fixture
def write(tmp_path):
    def file(*entries, array=False):
        path = tmp_path / "data.jsonl"
        text = json.dumps(entries) if array else "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        path.write_text(text, encoding="utf-8")
        return path

    return file


def seen(rows):
    return [(row["completions"], row["labels"]) for row in rows]


# PRM800K


def one(text, rating, flagged=None):
    return {"text": text, "rating": rating, "flagged": flagged}


def step(*completions, chosen=0, human=None):
    return {"completions": list(completions), "human_completion": human, "chosen_completion": chosen}


def prm800k(*steps):
    question = {"problem": "What is $2+2$?", "ground_truth_answer": "4"}
    return {"labeler": "l", "question": question, "label": {"steps": list(steps), "finish_reason": "found_error"}}


def test_alternatives_follow_the_chosen_steps_and_nothing_follows_them(write):
    path = write(
        prm800k(
            step(one("a", 1)),
            step(one("b", -1), one("c", 1), one("d", 0), chosen=1),
            step(one("e", -1), one("f", 1), chosen=None),
        )
    )
    assert seen(read_prm800k(path)) == [
        (["a", "c"], [1.0, 1.0]),
        (["a", "b"], [None, 0.0]),
        (["a", "d"], [None, 1.0]),
        (["a", "c", "e"], [None, None, 0.0]),
        (["a", "c", "f"], [None, None, 1.0]),
    ]
    row = next(read_prm800k(path))
    assert (row["prompt"], row["source"], row["rollouts"]) == ("What is $2+2$?", "prm800k", [None, None])


def test_what_nobody_rated_is_unknown_and_never_good(write):
    human = {"text": "written by hand", "rating": None, "source": "human", "flagged": False, "corrected_rating": None}
    path = write(
        prm800k(
            step(one("a", None)),
            step(one("b", 1, flagged=True), one("x", None), one("y", -1)),
            step(one("c", -1), chosen=None, human=human),
            step(one("d", 1)),
            {"completions": None, "human_completion": None, "chosen_completion": None},
        )
    )
    assert seen(read_prm800k(path)) == [
        (["a", "b", "written by hand", "d"], [None, None, None, 1.0]),
        (["a", "y"], [None, 0.0]),
        (["a", "b", "c"], [None, None, 0.0]),
    ]


@pytest.mark.parametrize(("neutral", "label"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
def test_neutral_steps_are_what_one_says(neutral, label, write):
    path = write(prm800k(step(one("a", 0)), step(one("b", 1))))
    assert seen(read_prm800k(path, neutral=neutral)) == [(["a", "b"], [label, 1.0])]


def test_neutral_steps_can_be_left_unknown_and_a_row_of_nothing_known_is_none(write):
    path = write(prm800k(step(one("a", 0))), prm800k(step(one("a", 0)), step(one("b", -1))))
    assert seen(read_prm800k(path, neutral=None)) == [(["a", "b"], [None, 0.0])]


# Math-Shepherd


def shepherd(text, signs):
    label = text
    for sign in signs:
        label = label.replace("ки", sign, 1)
    return {"input": text, "label": label, "task": "GSM8K"}


def test_steps_are_cut_at_tags_and_labelled_by_the_signs_in_their_place(write):
    text = (
        "Is 5 - 3 + 1 = 3? Say it. Step 1: 5 - 3 = 2. ки\nStep 2: 2 + 1 = 4, + 0. ки\nStep 3: No. The answer is: no ки"
    )
    (row,) = read_math_shepherd(write(shepherd(text, "+--")))
    assert row["prompt"] == "Is 5 - 3 + 1 = 3? Say it."
    assert row["completions"] == ["Step 1: 5 - 3 = 2.", "Step 2: 2 + 1 = 4, + 0.", "Step 3: No. The answer is: no"]
    assert (row["labels"], row["source"]) == ([1.0, 0.0, 0.0], "math_shepherd")


def test_the_tag_is_a_word_and_no_part_of_one(write):
    text = "Чему равны скидки кино? Step 1: Скидки 2, ки\nStep 2: кино 3. The answer is: 3 ки"
    label = "Чему равны скидки кино? Step 1: Скидки 2, +\nStep 2: кино 3. The answer is: 3 -"
    (row,) = read_math_shepherd(write({"input": text, "label": label, "task": "GSM8K"}))
    assert row["completions"] == ["Step 1: Скидки 2,", "Step 2: кино 3. The answer is: 3"]
    assert row["labels"] == [1.0, 0.0]


def test_a_tag_within_the_question_labels_no_step(write):
    text = "A price rises. ки\nBy how much? Step 1: By 2. ки\nStep 2: The answer is: 2 ки"
    (row,) = read_math_shepherd(write(shepherd(text, "-++")))
    assert (row["completions"], row["labels"]) == (["Step 1: By 2.", "Step 2: The answer is: 2"], [1.0, 1.0])
    assert row["prompt"] == "A price rises. \nBy how much?"


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"input": "q Step 1: a ки", "label": "q Step 1: b +"}, "goes on 'q Step 1: b"),
        ({"input": "q Step 1: a ки", "label": "q Step 1: a ?"}, r"has '\?' where \+ or - must be"),
        ({"input": "q Step 1: a ки", "label": "q Step 1: a + and more"}, "goes on after the last step"),
        ({"input": "q. First, a ки", "label": "q. First, a +"}, "where the question ends is not known"),
        ({"prompt": "q"}, "KeyError: 'input'"),
    ],
)
def test_what_is_not_plain_is_named_or_skipped_but_never_guessed(entry, why, write):
    path = write(shepherd("q Step 1: a ки", "+"), entry, shepherd("q Step 1: b ки", "-"))
    with pytest.raises(ConfigurationError, match=rf"line 2: not of this format .*{why}"):
        list(read_math_shepherd(path))
    skipped = []
    assert len(list(read_math_shepherd(path, skipped=skipped.append))) == 2
    assert len(skipped) == 1


# MATH-APS


def node(text, value, *children):
    return {"text": text, "mc_value": value, "children": list(children)}


def test_a_tree_gives_each_value_once_and_as_it_is(write):
    tree = node(
        "q?", 0.75,
        node("First.", 0.5, node("Second.\n\nSo 4.", 1.0), node("Other.", 0.0, node("Lost.", None))),
        node("Third.", 0.25),
    )  # fmt: skip
    assert seen(read_math_aps(write({"question": "q?", "final_answer": "4", "reasoning_steps": tree}))) == [
        (["First.", "Second.", "So 4."], [0.5, None, 1.0]),
        (["First.", "Other.", "Lost."], [None, 0.0, None]),
        (["Third."], [0.25]),
    ]


def test_a_flat_file_gives_the_same_rows_as_a_tree(write):
    prefixes = [("", 0.75), ("\n\nFirst.", 0.5), ("\n\n\nFirst.\n\nSecond.\n\nSo 4.", 1.0), ("\n\nThird.", 0.25),
                ("\n\nFirst.", 0.5)]  # fmt: skip
    steps = [{"solution_prefix": "q?" + text, "mc_value": value} for text, value in prefixes]
    assert seen(read_math_aps(write({"question": "q?", "final_answer": "4", "reasoning_steps": steps}))) == [
        (["First.", "Second.", "So 4."], [0.5, None, 1.0]),
        (["Third."], [0.25]),
    ]
    with pytest.raises(ConfigurationError, match='a "solution_prefix" must begin with the question'):
        list(read_math_aps(write({"question": "q!", "final_answer": "4", "reasoning_steps": steps[1:]})))


def test_words_that_the_oldest_form_glued_come_apart_again(write):
    states = [
        {"state": "", "rollout": " We have r = 4 here, so 24 is it.", "mcs": 0.6},
        {"state": "We have r =", "rollout": " 4 here, so 24 is it.", "mcs": 0.9},
        {"state": "We have r =", "rollout": " 5 here, so 25.", "mcs": 0.9},
        {"state": "We have r =4 here, so", "rollout": " 24 is it.", "mcs": 1.0},
        {"state": "We have r =5 here,", "rollout": " so 25.", "mcs": 0.0},
    ]
    rows = list(read_math_aps(write({"q": "q?", "states": states}, array=True)))
    assert seen(rows) == [
        (["We have r =", " 5 here,"], [0.9, 0.0]),
        (["We have r =", " 4 here, so"], [None, 1.0]),
    ]
    assert "".join(rows[1]["completions"]) == "We have r = 4 here, so"


def test_a_value_that_is_no_share_is_refused(write):
    with pytest.raises(ConfigurationError, match=r"must be in \[0, 1\]; got 3"):
        list(read_math_aps(write({"question": "q", "reasoning_steps": node("q", 1.0, node("a", 3))})))
