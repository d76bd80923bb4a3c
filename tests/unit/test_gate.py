import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1_reason.errors import ConfigurationError
from o1_reason.learn.gate import Answered, Comparison, compare, interval, one_sided


def side(rights, tries=1, tokens=10):
    return {str(i): Answered(right, tries, tokens * tries) for i, right in enumerate(rights)}


def by_enumeration(gains):
    signs = list(itertools.product((1, -1), repeat=len(gains)))
    reached = sum(sum(s * g for s, g in zip(sign, gains, strict=True)) >= sum(gains) for sign in signs)
    return Fraction(reached, len(signs))


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_p_is_the_share_of_all_sign_flips_that_do_as_well(gains):
    assert one_sided(gains) == pytest.approx(float(by_enumeration(gains)), rel=1e-12)


def test_a_hand_worked_mcnemar():
    """Eight problems only the candidate gets right, two only the incumbent: (45 + 10 + 1) / 1024."""
    found = compare(side([1] * 8 + [0] * 2 + [1] * 30), side([0] * 8 + [1] * 2 + [1] * 30), budget=100)
    assert (found.test, found.better, found.worse, found.problems) == ("McNemar", 8, 2, 40)
    assert found.p == 56 / 1024
    assert not found.accepted
    assert found.difference == 6 / 40
    assert found.low < 6 / 40 < found.high


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (40, 21), (3, 90), (400, 350)])
def test_mcnemar_agrees_with_scipys_binomial_test(wins, losses):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    assert one_sided([1] * wins + [-1] * losses + [0] * 17) == pytest.approx(expected, rel=1e-9)


def test_sign_flips_agree_with_scipys_permutation_test():
    stats = pytest.importorskip("scipy.stats")
    gains = [3, -1, 2, 0, 4, -2, 1, 1, -3, 2]
    found = stats.permutation_test(
        (gains, [0] * len(gains)), lambda a, b: sum(a) - sum(b), permutation_type="samples", alternative="greater"
    )
    assert one_sided(gains) == pytest.approx(found.pvalue, rel=1e-9)


def draw(dice, chances, tries):
    return side([sum(dice.random() < chance for _ in range(tries)) for chance in chances], tries)


@pytest.mark.parametrize("tries", [1, 3])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_an_equal_candidate_is_accepted_at_most_as_often_as_alpha_says(tries, alpha):
    dice = random.Random(f"{tries}/{alpha}")
    chances = [dice.random() for _ in range(40)]
    runs = 1500
    accepted = sum(
        compare(draw(dice, chances, tries), draw(dice, chances, tries), alpha=alpha, budget=None).accepted
        for _ in range(runs)
    )
    assert accepted / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert accepted > 0, "a gate that never opens would pass this, too"


def test_a_better_candidate_is_accepted_and_more_tries_see_smaller_gains():
    dice = random.Random(7)
    chances = [dice.random() * 0.8 for _ in range(100)]
    better = [chance + 0.08 for chance in chances]

    def power(tries):
        return sum(
            compare(draw(dice, better, tries), draw(dice, chances, tries), budget=None).accepted for _ in range(100)
        )

    assert power(1) < power(8)
    assert power(8) > 90


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.5])
def test_the_interval_holds_the_truth_as_often_as_it_says(gain):
    dice = random.Random(f"{gain}")
    held = 0
    for _ in range(1000):
        pairs = [(dice.random() < 0.3 + gain) - (dice.random() < 0.3) for _ in range(60)]
        low, high = interval(pairs)
        held += low <= gain <= high
    assert held >= 930


def test_no_difference_seen_is_not_a_difference_of_none():
    low, high = interval([0.0] * 50)
    assert low == -high < 0 < high < 0.05


def test_tokens_of_both_sides_are_reported_per_try():
    found = compare(side([1] * 8, 2, tokens=30), side([0] * 8, 2, tokens=20), alpha=0.01, budget=40)
    assert (found.tokens, found.budget, found.accepted) == ((30, 20), 40, True)
    assert Comparison.from_data(found.to_data()) == found


@pytest.mark.parametrize(
    ("candidate", "incumbent", "alpha", "why"),
    [
        (side([1] * 9), side([1] * 8), 0.05, "same problems"),
        (side([1] * 9), side([1] * 9, 2), 0.05, "equally many tries"),
        (side([1] * 4), side([0] * 4), 0.05, "at least 5"),
        (side([1] * 9), side([0] * 9), 0.5, "alpha must be"),
    ],
)
def test_what_is_no_fair_comparison_is_refused(candidate, incumbent, alpha, why):
    with pytest.raises(ConfigurationError, match=why):
        compare(candidate, incumbent, alpha=alpha, budget=None)


def test_the_least_number_of_problems_is_just_enough():
    assert compare(side([1] * 5), side([0] * 5), alpha=0.05, budget=None).accepted
