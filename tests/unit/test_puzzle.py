import re
import time
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from o1_reason_embedded.puzzle import Move, Puzzle, expression, parse, parse_step, solves

from o1_reason import ConfigurationError, Step

OPERATION = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else None,
}


def evaluate(text):
    """The value of an expression and the numbers in it, by precedence climbing over fractions."""
    tokens = re.findall(r"\d+|[-+*/()]", text)
    assert "".join(tokens) == text.replace(" ", "")
    used = []

    def factor():
        token = tokens.pop(0)
        if token == "(":
            value = chain("+-")
            assert tokens.pop(0) == ")"
            return value
        used.append(int(token))
        return Fraction(token)

    def chain(operators):
        operand = factor if operators == "*/" else lambda: chain("*/")
        value = operand()
        while tokens and tokens[0] in operators:
            value = OPERATION[tokens.pop(0)](value, operand())
        return value

    value = chain("+-")
    assert not tokens
    return value, sorted(used)


def everything(terms):
    """All that can be made of (value, text) terms, each used once, as (value, text)."""
    if len(terms) == 1:
        yield terms[0]
        return
    for (a, x), (b, y), *rest in permutations(terms):
        for operator, compute in OPERATION.items():
            value = compute(a, b)
            if value is not None:
                yield from everything([(value, f"({x} {operator} {y})"), *rest])


@pytest.mark.parametrize(
    ("question", "numbers", "target"),
    [
        ("4 5 6 10", (4, 5, 6, 10), 24),
        ("10, 6, 5, 4", (4, 5, 6, 10), 24),
        ("4 5 6", (4, 5, 6), 24),
        ("1 2 3 4 5", (1, 2, 3, 4, 5), 24),
        ("4,5,6,10 -> 24", (4, 5, 6, 10), 24),
        ("4 5 6 10 = 30", (4, 5, 6, 10), 30),
        ("Make 40 from 3, 7, 9 and 12", (3, 7, 9, 12), 40),
        ("make 24 from 4, 5, 6 and 10.", (4, 5, 6, 10), 24),
        ("use 3, 7, 8, 8 to make 24", (3, 7, 8, 8), 24),
        ("Use the numbers 3 7 8 8 to get 10", (3, 7, 8, 8), 10),
        ("How can you reach 100 with 25, 4, 2 and 2?", (2, 2, 4, 25), 100),
        ("Countdown: numbers 5 6 7, target 37", (5, 6, 7), 37),
        ("Target: 37. Numbers: 5, 6, 7", (5, 6, 7), 37),
        ("Game of 24: 4 5 6 10", (4, 5, 6, 10), 24),
        ("24 game with 4 5 6 10", (4, 5, 6, 10), 24),
        ("Solve the 24-puzzle 4 5 6 10", (4, 5, 6, 10), 24),
        ("Find an expression that equals 24 using each of 4, 5, 6, 10 exactly once", (4, 5, 6, 10), 24),
        ("24 24 1", (1, 24, 24), 24),
        ("  4\n5\t6 10  ", (4, 5, 6, 10), 24),
    ],
)
def test_a_puzzle_is_read_from_natural_wording(question, numbers, target):
    assert parse(question) == Puzzle(numbers, target)


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "",
        "hello",
        "4 5",
        "1 2 3 4 5 6",
        "0 4 5 6",
        "4 5 6 26",
        "4 5 6 10 -> 101",
        "make 0 from 4 5 6",
        "1.5 4 6 8",
        "1/2 4 6 8",
        "-4 5 6 10",
        "4 5 6 10000",
        "Tom has 4 apples, 5 pears and 6 plums",
        "4 5 6 x",
        "Make 24 from four, five and six",
        "make 24",
    ],
)
def test_anything_else_is_refused_with_a_way_out(question):
    with pytest.raises(ConfigurationError, match=r"arithmetic puzzles only: it .*docs/plug-ins\.md"):
        parse(question)


def test_a_refusal_does_not_repeat_a_long_question():
    with pytest.raises(ConfigurationError) as refusal:
        parse("why " * 10_000)
    assert len(str(refusal.value)) < 500


@given(st.text())
def test_any_text_is_a_puzzle_in_the_domain_or_refused(text):
    try:
        puzzle = parse(text)
    except ConfigurationError:
        return
    assert 3 <= len(puzzle.numbers) <= 5
    assert list(puzzle.numbers) == sorted(puzzle.numbers)
    assert all(1 <= number <= 25 for number in puzzle.numbers)
    assert 1 <= puzzle.target <= 100


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("4 + 6 = 10 (left: 5 10 10)", Move(4, "+", 6, 10, (5, 10, 10))),
        (" 24 / 1 = 24 (left: 24)\n", Move(24, "/", 1, 24, (24,))),
        ("4 + 6 = 11 (left: 1)", Move(4, "+", 6, 11, (1,))),
        ("4 + 6 = 10", None),
        ("4 ^ 6 = 10 (left: 10)", None),
        ("4 - 6 = -2 (left: 2)", None),
        ("so 4 + 6 = 10 (left: 10)", None),
        ("4 + 6 = 10 (left: )", None),
        ("", None),
    ],
)
def test_a_step_is_read_as_stated(text, move):
    assert parse_step(text) == move


@pytest.mark.parametrize(
    ("step", "legal"),
    [
        ("4 + 6 = 10 (left: 5 10 10)", True),
        ("4 + 6 = 10 (left: 10 5 10)", True),
        ("4 * 5 = 20 (left: 6 10 20)", True),
        ("10 / 5 = 2 (left: 2 4 6)", True),
        ("4 + 6 = 11 (left: 5 10 11)", False),
        ("4 + 6 = 10 (left: 5 10)", False),
        ("4 + 6 = 10 (left: 5 5 10)", False),
        ("4 + 4 = 8 (left: 5 8 10)", False),
        ("4 + 7 = 11 (left: 5 10 11)", False),
        ("10 / 4 = 2 (left: 2 5 6)", False),
        ("4 / 0 = 0 (left: 0 5 10)", False),
    ],
)
def test_a_move_is_legal_if_the_rules_hold_exactly(step, legal):
    assert parse_step(step).legal((4, 5, 6, 10)) is legal


@st.composite
def traces(draw):
    """Numbers, the steps of a random legal trace with whole numbers from 0, and what it comes to."""
    numbers = sorted(draw(st.lists(st.integers(1, 25), min_size=3, max_size=5)))
    left, steps = list(numbers), []
    while len(left) > 1:
        a, b, *rest = draw(st.permutations(left))
        able = {operator: compute(Fraction(a), b) for operator, compute in OPERATION.items()}
        able = {o: int(v) for o, v in able.items() if v is not None and v >= 0 and v.denominator == 1}
        operator = draw(st.sampled_from(sorted(able)))
        left = sorted([*rest, able[operator]])
        steps.append((a, operator, b, able[operator], left))
    return numbers, steps, left[0]


def written(steps):
    return [Step(f"{a} {o} {b} = {c} (left: {' '.join(map(str, left))})") for a, o, b, c, left in steps]


@settings(max_examples=200)
@given(traces())
def test_the_expression_of_a_legal_trace_uses_its_numbers_and_is_worth_its_end(trace):
    numbers, steps, end = trace
    left = numbers
    for step in written(steps):
        move = parse_step(step.text)
        assert move.legal(left)
        left = move.left
    text = expression(numbers, written(steps))
    assert evaluate(text) == (end, numbers)
    puzzle = Puzzle(tuple(numbers), end)
    assert solves(puzzle, text)
    assert solves(puzzle, f" {text} = {end} ")
    assert not solves(puzzle, f"{text} = {end + 1}")
    assert not solves(Puzzle(tuple(numbers), end + 1), text)
    assert not solves(Puzzle((*numbers[:-1], numbers[-1] + 1), end), text)


@given(traces())
def test_the_order_of_operands_does_not_change_the_expression(trace):
    numbers, steps, _ = trace
    turned = [(b, o, a, c, left) if o in "+*" else (a, o, b, c, left) for a, o, b, c, left in steps]
    assert expression(numbers, written(turned)) == expression(numbers, written(steps))


def test_chains_are_flat_and_brackets_are_few():
    steps = written([(10, "-", 4, 6, [5, 6, 6]), (5, "*", 6, 30, [6, 30]), (30, "-", 6, 24, [24])])
    assert expression((4, 5, 6, 10), steps) in ("5 * 6 - (10 - 4)", "4 + 5 * 6 - 10", "5 * (10 - 4) - 6")


def test_a_wrong_trace_gives_a_wrong_expression_and_a_foreign_one_none():
    assert expression((4, 5, 6), [Step("4 + 5 = 24 (left: 6 24)"), Step("24 * 6 = 24 (left: 24)")]) == "6 * (4 + 5)"
    assert expression((4, 5, 6), [Step("let us think")]) == ""
    assert expression((4, 5, 6), []) == "0"


@settings(max_examples=30)
@given(st.lists(st.integers(1, 13), min_size=3, max_size=3), st.integers(1, 40))
def test_solves_agrees_with_an_exhaustive_solver(numbers, target):
    puzzle = Puzzle(tuple(sorted(numbers)), target)
    for value, text in everything([(Fraction(n), str(n)) for n in numbers]):
        assert solves(puzzle, text) == (value == target)


@pytest.mark.parametrize(("numbers", "solvable"), [((1, 1, 1, 1), False), ((3, 3, 8, 8), True), ((4, 5, 6, 10), True)])
def test_of_all_expressions_solves_accepts_exactly_the_right_ones(numbers, solvable):
    made = {text: value for value, text in everything([(Fraction(n), str(n)) for n in numbers])}
    right = [text for text, value in made.items() if value == 24]
    assert bool(right) is solvable
    assert all(solves(Puzzle(numbers, 24), text) for text in right)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "24",
        "4 * 6",
        "4 * 6 * (10 - 5) / 5",
        "4 * 6 * 5 * 10",
        "5 * (10 - 4) - 6 + 0",
        "-(6 - 5 * (10 - 4))",
        "+5 * (10 - 4) - 6",
        "5.0 * (10 - 4) - 6",
        "5 * (10 - 4) // 1 - 6",
        "5 * (10 - 4) - 6, 0",
        "5 * (10 - 4) - 6 == 24",
        "5 * (10 - 4) - 6 = 24 = 24",
        "5 * (10 - 4) - 6 = 24.0",
        "True * 4 + 5 * 6 - 10",
        "4 / (5 - 5) + 6 + 10",
        "__import__('os').system('true')",
        "[5 * (10 - 4) - 6][0]",
        "(lambda: 24)()",
        "(x := 24)",
        "f'{24}'",
        "9**9**9",
        "9**9**9 = 24",
        "10**4**5**6",
        "4 << 5 << 6 << 10",
        "'4' * 5 * 6 * 10",
        "(" * 140 + "4" + ")" * 140,
        "(" * 100_000,
        "-" * 299 + "4",
        "4+" * 148 + "4",
        "9" * 299,
        "9" * 100_000,
        "4\x00",
        "４ ＊ ６",
        "\ud800",
        "'\\d'",
    ],
    ids=lambda answer: ascii(answer[:24]),
)
def test_what_breaks_the_rules_or_is_hostile_is_no_solution_and_takes_no_time(answer):
    started = time.perf_counter()
    assert not solves(Puzzle((4, 5, 6, 10), 24), answer)
    assert time.perf_counter() - started < 0.2


@given(st.text() | st.text(alphabet="0123456789+-*/()= \n.", max_size=40))
def test_no_answer_raises(answer):
    assert solves(Puzzle((4, 5, 6, 10), 24), answer) in (True, False)
