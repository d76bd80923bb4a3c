import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1_reason.answers import canonical, equivalent, extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{24}", "24"),
        ("\\boxed{1} no, \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("\\fbox{7}", "7"),
        ("\\boxed{3}\nAnswer: 4", "3"),
        ("... = 18\n#### 18", "18"),
        ("#### 1\n#### 2", "2"),
        ("Answer: 42", "42"),
        ("The final answer is: 42.", "42"),
        ("**Answer:** 5\nthe answer is 6", "6"),
        ("The answer is 3.14.", "3.14"),
        ("The answer is 12. That was easy", "12"),
        ("Q: what?\nA: blue", "blue"),
        ("The answer is **17**.", "17"),
    ],
)
def test_the_last_marked_answer_is_extracted(text, answer):
    assert extract_answer(text) == answer


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
        ("0.50", "1/2"),
        ("50%", "1/2"),
        ("-4/8", "-1/2"),
        ("$\\frac{1}{2}$", "1/2"),
        ("\\dfrac12", "1/2"),
        ("\\text{Blue}", "blue"),
        ("2 \\cdot x", "2*x"),
        ("( 1 , 2 )", "(1,2)"),
        ("New  York", "new york"),
        ("1/0", "1/0"),
        ("12,34", "12,34"),
    ],
)
def test_answers_have_a_canonical_form(answer, form):
    assert canonical(answer) == form


@pytest.mark.parametrize(
    ("a", "b"), [("0.5", "\\frac{1}{2}"), ("1,000", "1000"), ("x + 1", "x+1"), ("Yes", "yes."), ("\\$5", "5")]
)
def test_the_same_answer_written_in_two_ways_is_equivalent(a, b):
    assert equivalent(a, b)


@pytest.mark.parametrize(("a", "b"), [("2 * 12", "24"), ("1", "2"), ("x+1", "1+x"), ("", "0"), ("1/3", "0.333")])
def test_different_answers_are_not_equivalent_and_nothing_is_evaluated(a, b):
    assert not equivalent(a, b)


@given(st.fractions(max_denominator=10**6))
def test_every_way_to_write_a_fraction_is_one_answer(x):
    ways = [f"{x.numerator}/{x.denominator}", f"{x.numerator * 3} / {x.denominator * 3}", f"${x}$", f" {x}. "]
    sign = "-" if x < 0 else ""
    ways.append(f"{sign}\\frac{{{abs(x.numerator)}}}{{{x.denominator}}}")
    assert {canonical(way) for way in ways} == {str(x)}


@given(st.integers())
def test_grouped_digits_are_the_same_integer(n):
    assert equivalent(f"{n:,}", str(n))


@given(st.text() | st.text(alphabet="\\{}boxedfrac0123456789/.,%$ -#A:\n", max_size=200), st.text())
def test_no_text_raises(a, b):
    extract_answer(a)
    assert isinstance(canonical(a), str)
    assert equivalent(a, a)
    assert equivalent(a, b) == equivalent(b, a)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20_000,
        "\\frac{" * 20_000,
        "(" * 100_000,
        "9" * 100_000,
        "1," * 50_000,
        "1/" * 50_000,
        "answer is " * 10_000,
        " " * 1990 + "*",
        "\\text{" * 300 + "}" * 100,
    ],
    ids=lambda text: text[:8].strip() or "blank",
)
def test_hostile_text_takes_no_time(text):
    started = time.perf_counter()
    extract_answer(text)
    canonical(text)
    assert time.perf_counter() - started < 0.5
