import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1_reason.answers import canonical, extract_answer
from o1_reason.answers.normal import number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{24}", "24"),
        ("\\boxed{1} no, \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("\\fbox{7}", "7"),
        ("\\boxed {7}", "7"),
        ("\\boxed{3}\nAnswer: 4", "3"),
        ("... = 18\n#### 18", "18"),
        ("#### 1\n#### 2", "2"),
        ("Answer: 5\n####", "5"),
        ("Answer: 42", "42"),
        ("The final answer is: 42.", "42"),
        ("**Answer:** 5\nthe answer is 6", "6"),
        ("The answer is 3.14.", "3.14"),
        ("The answer is 12. That was easy", "12"),
        ("Answer: 12. That was easy", "12"),
        ("The answer is 12 because 3 * 4 = 12.", "12"),
        ("The answer is St. Louis. It is in Missouri.", "St. Louis"),
        ("The answer to the question is 12", "12"),
        ("The answer is not 11. The answer is 12", "12"),
        ("The answer should be 12!", "12!"),
        ("Q: what?\nA: blue", "blue"),
        ("The answer is **17**.", "17"),
        ("Answer: 2**3", "2**3"),
        ("The answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("The answer is \\(x = 5\\).", "x = 5"),
        ("The answer is $5$ dollars and $3$ cents", "$5$ dollars and $3$ cents"),
    ],
)
def test_the_last_marked_answer_is_extracted(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is:\n\\[\n\\frac{1}{2}.\n\\]\nAs was to be shown.", "\\frac{1}{2}"),
        ("Answer:\n\n$$x^2$$", "x^2"),
        ("### Final Answer\n\n42\n", "42"),
        ("**Final Answer**\n\n(1, 2)", "(1, 2)"),
        ("Answer:\n```python\nprint(1)\nprint(2)\n```\nDone.", "print(1)\nprint(2)"),
        ("The answer is ```42```", "42"),
        ("The answer is `42`.", "42"),
        ("```\nanswer = 42\n```", "42"),
    ],
)
def test_an_answer_may_begin_on_the_line_after_its_marker_or_be_a_block(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (B).",
        "The answer is (B) Paris.",
        "The answer is B. Paris is the capital.",
        "Answer: B",
        "Answer: B) Paris",
        "Answer: **B**",
        "**Answer: (B)**",
        "The correct option is B",
        "The correct option is **(B)**, Paris.",
        "So the correct answer is option (B)",
        "Hence option (B) is correct.",
        "The best choice is: B.",
        "The answer choices are (A) Rome and (C) Oslo.\nAnswer: B",
        "The answer is B because Paris is in France.",
        "\\boxed{\\text{(B)}}",
        '{"answer": "B"}',
    ],
)
def test_the_letter_of_a_choice_is_extracted(text):
    assert canonical(extract_answer(text) or "") == "b"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: A train", "A train"),
        ("Answer: (A) and (C)", "(A) and (C)"),
        ("Answer: I think 5", "I think 5"),
        ("Answer: B, C", "B, C"),
        ("Answer: (2, 3)", "(2, 3)"),
    ],
)
def test_what_only_begins_like_the_letter_of_a_choice_is_left_whole(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"answer": "42"}', "42"),
        ('{"answer": 42}', "42"),
        ('{"Answer": -1.50, "why": "x"}', "-1.50"),
        ('Here:\n```json\n{\n  "reasoning": "the answer is 7",\n  "final_answer": "8"\n}\n```', "8"),
        ('{"answer": "1", "final answer": "2"}', "2"),
        ('{"answer": [1, 2]}', "[1, 2]"),
        ('{"answer": "a \\"b\\" c"}', 'a "b" c'),
        ('{"answer": "\\\\frac{1}{2}"}', "\\frac{1}{2}"),
        ('{"answer": "\\frac{1}{2}"}', "\\frac{1}{2}"),  # as models write it; JSON would see a form feed
        ('{"answer": "\\sqrt{2} \\times \\text{b}"}', "\\sqrt{2} \\times \\text{b}"),
        ('{"answer": "\\\\boxed{\\\\frac{1}{2}}"}', "\\frac{1}{2}"),
        ('{"answer": "cut off', None),
        ('{"answer": null}', None),
    ],
)
def test_the_answer_field_of_a_json_reply_is_extracted(text, answer):
    assert extract_answer(text) == answer


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30))
def test_a_string_in_proper_json_is_extracted_as_it_is(text):
    answer = text.replace("\\", "").strip(" *_`.$\n\t\r\f\v") or "x"
    if answer == answer.strip() and "boxed" not in answer and "fbox" not in answer:
        assert extract_answer(json.dumps({"answer": answer})) == answer


@pytest.mark.parametrize("text", ["", "24", "no marker here", "\\boxed{cut off", "\\boxed{}", "#### ", "answers vary"])
def test_nothing_is_extracted_where_nothing_is_marked(text):
    assert extract_answer(text) is None


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("024", "24"),
        ("0", "0"),
        (" 24. ", "24"),
        ("+3", "3"),
        ("1,234,567", "1234567"),
        ("1,\\!234", "1234"),
        ("1{,}234", "1234"),
        ("1\\,234", "1234"),
        ("0.50", "1/2"),
        (".5", "1/2"),
        ("50%", "1/2"),
        ("50 \\%", "1/2"),
        ("50 percent", "1/2"),
        ("1.5e3", "1500"),
        ("-4/8", "-1/2"),
        ("$\\frac{1}{2}$", "1/2"),
        ("\\dfrac12", "1/2"),
        ("\\frac 3 8", "3/8"),
        ("-\\frac{1} { 4027}", "-1/4027"),
        ("\\frac{-33}{2}", "-33/2"),
        ("2\\frac{1}{4}", "9/4"),
        ("-2 1/2", "-5/2"),
        ("0.1\\overline{6}", "1/6"),
        ("\\$1,657", "1657"),
        ("12\\text{ cm}", "12"),
        ("2400 \\mbox{ cm}^2", "2400"),
        ("34\\text{ sq. units}", "34"),
        ("18 dollars", "18"),
        ("60 miles per hour", "60"),
        ("5km", "5"),
        ("30^\\circ", "30"),
        ("30^{\\circ}.", "30"),
        ("10^\\circ, 50^\\circ", "10,50"),
        ("x = 12", "12"),
        ("x \\in [1, 2]", "[1,2]"),
        ("(B)", "b"),
        ("\\text{(B)}", "b"),
        ("Option B", "b"),
        ("{17}.", "17"),
        ("\\mathbf{2340}", "2340"),
        ("\\text{Blue}", "blue"),
        ("2 \\cdot x", "2*x"),
        ("2 \\times x", "2*x"),
        ("( 1 , 2 )", "(1,2)"),
        ("\\left( 1, 2 \\right]", "(1,2]"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("sqrt(3)/2", "\\sqrt{3}/2"),
        ("\\frac{\\sqrt3}2", "\\frac{\\sqrt{3}}{2}"),
        ("x^{2}", "x^2"),
        ("x**2", "x^2"),
        ("x^-1", "x^{-1}"),
        ("x^{2}3", "x^{2}3"),
        ("3 \\pi r", "3\\pi r"),
        ("3π", "3\\pi"),
        ("x \\leq 3", "x\\le3"),
        ("x <= 3", "x\\le3"),
        ("1 or 2", "1,2"),
        ("6, 8\\text{, and }10", "6,8,10"),
        ("New  York", "new york"),
        ("black and white", "black and white"),
    ],
)
def test_answers_have_a_canonical_form(answer, form):
    assert canonical(answer) == form


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("1/0", "1/0"),
        ("12,34", "12,34"),
        ("81, 256", "81, 256"),  # two numbers; 81,256 is one
        ("45^\\circ,135^\\circ", "45, 135"),
        ("t = 81, 256", "81, 256"),
        ("1 2", "1 2"),
        ("3 million", "3 million"),
        ("2 pi", "2\\pi"),
        ("3 m", "3m"),
        ("8 p.m.", "8p.m"),
        ("10001_2", "10001_2"),
        ("\\sin 30^\\circ", "\\sin30^\\circ"),
        ("(x+1)(x-1)", "(x+1)(x-1)"),
        ("y = 2x", "y=2x"),
        ("2 * 12", "2*12"),
    ],
)
def test_what_means_something_is_not_taken_away(answer, form):
    assert canonical(answer) == form


@given(st.fractions(max_denominator=10**6))
def test_every_way_to_write_a_fraction_is_one_answer(x):
    ways = [f"{x.numerator}/{x.denominator}", f"{x.numerator * 3} / {x.denominator * 3}", f"${x}$", f" {x}. "]
    sign = "-" if x < 0 else ""
    ways.append(f"{sign}\\frac{{{abs(x.numerator)}}}{{{x.denominator}}}")
    whole, rest = divmod(abs(x.numerator), x.denominator)
    ways.append(f"{sign}{whole}\\frac{{{rest}}}{{{x.denominator}}}")
    assert {canonical(way) for way in ways} == {str(x)}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3))
def test_a_decimal_is_the_fraction_it_is(x):
    assert number(f"{x:f}") == x
    assert canonical(f"{x:,f}") == canonical(f"{x:f}")


@given(st.integers())
def test_grouped_digits_are_the_same_integer(n):
    assert canonical(f"{n:,}") == canonical(str(n))


PIECES = [
    r"\frac", r"\dfrac", r"\sqrt", "{", "}", "(", ")", "[", "]", "1", "2", "10", "000", "x", "y", "e", "i", "a", "B",
    ",", r"\,", r"\!", "{,}", "+", "-", "*", "/", "^", "_", "=", r"\leq", "<=", r"\text{", r"\text{cm}", " cm",
    " apples", r"\pi", "pi", "π", "sqrt", "√", r"\cdot", "%", "percent", "$", r"\$", ".", "or", "and", r"\left",
    r"\right", r"\{", r"\}", r"^\circ", r"\begin{pmatrix}", r"\\", "&", r"\end{pmatrix}", "**", "'", "~", r"\cup",
    r"\in", r"\infty", r"\overline{3}", r"\phantom", r"\sin", "sin", "option", "|", ":", ";", '"', "boxed", "####",
    "Answer:", "A:", '"answer":', "```",
]  # fmt: skip
latex = st.lists(st.sampled_from([*PIECES, " ", "\n"]), max_size=12).map("".join)


@given(latex | st.text())
def test_the_form_of_a_form_is_the_form(text):
    form = canonical(text)
    assert canonical(form) == form


@given(latex | st.text())
def test_no_text_raises(text):
    answer = extract_answer(text)
    assert answer is None or answer.strip()


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20_000,
        "\\frac{" * 20_000,
        "\\frac{" * 330,
        "\\sqrt" * 390,
        "(" * 100_000,
        "9" * 100_000,
        "1," * 50_000,
        "1/" * 50_000,
        "answer is " * 10_000,
        "answer" + " " * 20_000,
        '"answer": ' * 2_000,
        '"answer": "' + "\\" * 20_000,
        "Answer: " + "[" * 20_000,
        '"answer": ' + "[" * 20_000,
        "```" * 5_000,
        " " * 1990 + "*",
        "\\text{" * 300 + "}" * 100,
        "1" + " a" * 900,
        "{" * 1000 + "1" + "}" * 999,
        "x=" * 900,
        "^(" * 900,
    ],
    ids=lambda text: text[:8].strip() or "blank",
)
def test_hostile_text_takes_no_time(text):
    started = time.perf_counter()
    extract_answer(text)
    canonical(text)
    assert time.perf_counter() - started < 2
