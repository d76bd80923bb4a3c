import itertools
import random
from statistics import mean as average

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1_reason import BestOfN, Step, search
from o1_reason.audit.metrics import (
    area,
    area_within,
    best_threshold,
    calibration,
    first_error,
    predict,
    roc,
)
from o1_reason.audit.selection import Pool, any_of, apart, best_of, mean, orders_of, paired_test, vote
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
PAIRS = st.lists(st.tuples(SCORES, st.booleans()), min_size=2, max_size=12).filter(
    lambda pairs: len({right for _, right in pairs}) == 2
)
FIVE = [(0.8, True), (0.6, True), (0.4, True), (0.6, False), (0.2, False)]


# AUC.


def test_auc_counts_pairs_that_are_in_order_and_half_of_the_ties():
    found = area(FIVE, range(5))
    assert found.value == 4.5 / 6  # 0.8 beats both; 0.6 ties and beats; 0.4 loses and beats


def test_the_interval_of_independent_solutions_is_worked_by_hand():
    # Placements: right 1, 0.75, 0.5; wrong 0.5, 1; their mean 0.75.
    # Variance: 3/2 * (0.25^2 + 0.25^2) / 3^2 + 2/1 * (0.25^2 + 0.25^2) / 2^2 = 1/48 + 1/16 = 1/12.
    found = area(FIVE, range(5))
    assert found.low == pytest.approx(0.75 - 1.96 * (1 / 12) ** 0.5)
    assert found.high == 1.0


def test_the_interval_of_clustered_solutions_is_worked_by_hand():
    # Clusters {0.8, 0.6 wrong}, {0.6, 0.2 wrong}, {0.4}: excess of right 0.25, 0, -0.25, of wrong -0.25, 0.25.
    # 1/48 + 1/16 as above, and 2 * 3/2 * (0.25 * -0.25 + 0 * 0.25) / (3 * 2) = -1/32.
    found = area(FIVE, ["a", "b", "c", "a", "b"])
    assert found.low == pytest.approx(0.75 - 1.96 * (1 / 12 - 1 / 32) ** 0.5)


def test_copies_of_a_solution_in_its_own_cluster_make_nothing_surer():
    clusters = ["a", "b", "c", "a", "b"]
    once, thrice = area(FIVE, clusters), area(FIVE * 3, clusters * 3)
    assert (thrice.value, thrice.low) == (pytest.approx(once.value), pytest.approx(once.low))
    assert area(FIVE * 3, range(15)).low > once.low + 0.1


def test_one_question_alone_tells_nothing_about_others():
    found = area(FIVE, [0] * 5)
    assert (found.low, found.high) == (0, 1)


def test_there_is_no_auc_without_both_kinds():
    assert area([(0.3, True), (0.4, True)], [0, 1]) is None
    assert area([], []) is None
    assert area_within([(0.3, True), (0.4, False)], [0, 1]) is None


def test_knowing_hard_questions_from_easy_ones_is_no_help_within_a_question():
    easy = [(0.9, True), (0.9, True), (0.9, False)]
    hard = [(0.1, True), (0.1, False), (0.1, False)]
    clusters = [0, 0, 0, 1, 1, 1]
    assert area(easy + hard, clusters).value == pytest.approx(6 / 9)  # 4 pairs in order, 4 ties, 1 the other way
    assert area_within(easy + hard, clusters) == 0.5


def test_questions_weigh_by_their_pairs():
    one, four = [(1.0, True), (0.0, False)], [(0.0, True), (0.0, True), (1.0, False), (1.0, False)]
    assert area_within(one + four, [0] * 2 + [1] * 4) == 1 / 5


@given(PAIRS)
def test_auc_is_the_share_of_ordered_pairs_and_the_area_under_the_roc_curve(pairs):
    rights = [score for score, right in pairs if right]
    wrongs = [score for score, right in pairs if not right]
    expected = average((a > b) + (a == b) / 2 for a in rights for b in wrongs)
    assert area(pairs, range(len(pairs))).value == pytest.approx(expected)
    points = roc(pairs)
    assert (points[0], points[-1]) == ((0, 0), (1, 1))
    assert sum((c - a) * (b + d) / 2 for (a, b), (c, d) in itertools.pairwise(points)) == pytest.approx(expected)


# Calibration.


def test_calibration_is_worked_by_hand():
    found = calibration([(0.05, False), (0.15, True), (0.95, True), (1.0, True)])
    # Bins: one of score 0.05, none right; one of 0.15, right; two of 0.975 on average, both right.
    assert found.ece == pytest.approx((0.05 + 0.85 + 2 * 0.025) / 4)
    assert found.brier == pytest.approx((0.05**2 + 0.85**2 + 0.05**2) / 4)
    assert found.base_brier == pytest.approx(0.75 * 0.25)
    assert [(b.low, b.n, b.right) for b in found.bins] == [(0.0, 1, 0.0), (0.1, 1, 1.0), (0.9, 2, 1.0)]


def test_errors_that_cancel_in_a_wide_bin_show_in_bins_of_equal_numbers():
    found = calibration([(0.11, True), (0.19, False)])
    assert found.ece == pytest.approx(0.35)
    assert found.adaptive == pytest.approx((0.89 + 0.19) / 2)


def test_equal_scores_share_a_bin_of_equal_numbers():
    assert calibration([(0.5, i < 10) for i in range(20)]).adaptive == 0


def test_bins_of_equal_numbers_hold_a_tenth_each():
    # 0.000 to 0.099, the upper half right: one wide bin hides it, ten bins of ten do not.
    found = calibration([(i / 1000, i >= 50) for i in range(100)])
    assert found.ece == pytest.approx(0.5 - 0.0495)
    assert found.adaptive == pytest.approx((sum(range(50)) / 1000 + 50 - sum(range(50, 100)) / 1000) / 100)


def test_there_is_no_calibration_of_nothing():
    assert calibration([]) is None


# First errors.


@pytest.mark.parametrize(
    ("rewards", "threshold", "first"),
    [([0.9, 0.4, 0.1], 0.5, 1), ([0.9, 0.5], 0.5, -1), ([0.2], 0.5, 0), ([0.0, 0.0], 0.0, -1)],
)
def test_the_first_error_is_the_first_reward_below_the_threshold(rewards, threshold, first):
    assert predict(rewards, threshold) == first


def test_f1_is_the_harmonic_mean_of_both_accuracies():
    found = first_error([(1, 1), (0, 2), (-1, -1), (-1, -1), (3, -1)], 0.5)
    assert (found.error_accuracy, found.correct_accuracy) == (1 / 2, 2 / 3)
    assert found.f1 == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))
    assert (found.erroneous, found.correct) == (2, 3)


def test_f1_of_finding_nothing_is_0_and_without_both_kinds_there_is_none():
    assert first_error([(-1, 0), (0, -1)], 0.5).f1 == 0
    assert first_error([(0, 0)], 0.5) is None
    assert first_error([(-1, -1)], 0.5) is None


@st.composite
def traces(draw):
    rewards = draw(st.lists(st.lists(SCORES, min_size=1, max_size=4), min_size=1, max_size=8))
    return [(row, draw(st.integers(-1, len(row) - 1))) for row in rewards]


@given(traces())
def test_no_threshold_does_better_than_the_best(data):
    def f1(threshold):
        found = first_error([(predict(rewards, threshold), true) for rewards, true in data], threshold)
        return found.f1 if found else 0.0

    assert f1(best_threshold(data)) == pytest.approx(max(f1(k / 40) for k in range(41)))


def test_the_best_threshold_stands_in_the_middle_of_its_range():
    assert best_threshold([([0.9, 0.2], 1), ([0.8, 0.7], -1)]) == pytest.approx(0.45)
    assert best_threshold([]) == 0.5


# Choosing one of n.


def test_one_of_n_is_right_by_the_closed_form():
    pool = Pool((True, False, False, False), (None,) * 4)
    assert [any_of(pool, n) for n in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_best_of_two_with_a_tie_is_worked_by_hand():
    pool = Pool((True, False, True), ("a", "b", "a"))
    # {1st, 2nd}: a tie, 1/2; {1st, 3rd}: the 1st, right; {2nd, 3rd}: the 2nd, wrong.
    assert best_of(pool, [0.8, 0.8, 0.3], 2) == pytest.approx((0.5 + 1 + 0) / 3)


@st.composite
def pools(draw):
    size = draw(st.integers(1, 6))
    right = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    keys = draw(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=size, max_size=size))
    scores = draw(st.lists(SCORES | st.none(), min_size=size, max_size=size))
    return Pool(tuple(right), tuple(keys)), scores, draw(st.integers(1, size))


@given(pools())
def test_best_of_n_is_the_mean_over_all_subsets_and_all_ways_to_break_ties(given):
    pool, scores, n = given
    voted = any(pool.keys)

    def worth(subset):
        able = [i for i in subset if scores[i] is not None and (pool.keys[i] or not voted)]
        top = [i for i in able if scores[i] == max(scores[j] for j in able)]
        return average(pool.right[i] for i in top) if top else 0.0

    expected = average(worth(subset) for subset in itertools.combinations(range(len(scores)), n))
    assert best_of(pool, scores, n) == pytest.approx(expected)


def test_majority_votes_are_worked_by_hand():
    pool = Pool((True, True, False), ("a", "a", "b"))
    orders = list(itertools.permutations(range(3)))
    # Of two: a and a, or a tie that goes to the first.
    assert vote(pool, None, [1, 2, 3], orders) == pytest.approx([2 / 3, 2 / 3, 1])


def test_weighted_votes_are_worked_by_hand():
    pool = Pool((True, True, False), ("a", "a", "b"))
    orders = list(itertools.permutations(range(3)))
    assert vote(pool, [0.3, 0.3, 0.5], [1, 2, 3], orders) == pytest.approx([2 / 3, 1 / 3, 1])  # 0.6 beats 0.5
    assert vote(pool, [0.3, 0.3, 0.9], [3], orders) == [0]
    assert vote(pool, [0.3, None, 0.5], [3], orders) == [0], "who has no score does not vote"
    assert vote(pool, [0.0, 0.0, 0.0], [3], orders) == [1], "where all scores are 0 the votes decide"


def test_solutions_without_an_answer_do_not_vote():
    pool = Pool((False, False, True), (None, None, "a"))
    assert vote(pool, None, [3], [[0, 1, 2]]) == [1]
    assert vote(Pool((True,), (None,)), None, [1], [[0]]) == [0]


@pytest.mark.parametrize("mode", ["majority", "weighted"])
async def test_a_vote_goes_as_in_a_search(mode):
    dice = random.Random(3)
    for _ in range(40):
        keys = [dice.choice("abcd") for _ in range(6)]
        scores = [0.5 if mode == "majority" else dice.random() for _ in keys]
        policy = ScriptedPolicy({(): [Step(f"{i}", terminal=True, answer=key) for i, key in enumerate(keys)]})
        verifier = ScriptedVerifier({f"{i}": score for i, score in enumerate(scores)})
        chosen = (await search("?", policy, verifier, BestOfN(n=6, vote=mode))).answer
        for key in "abcd":
            pool = Pool(tuple(k == key for k in keys), tuple(keys))
            found = vote(pool, None if mode == "majority" else scores, [6], [range(6)])
            assert found == [chosen == key]


def test_orders_are_random_seeded_and_put_each_solution_first_equally_often():
    pool = Pool((True,) * 5, (None,) * 5)
    orders = orders_of(pool, 3, 20, "seed")
    assert orders == orders_of(pool, 3, 20, "seed") != orders_of(pool, 3, 20, "other")
    assert all(len(set(order)) == 3 for order in orders)
    assert sorted(order[0] for order in orders) == sorted(list(range(5)) * 4)
    assert len({tuple(order) for order in orders}) > 10
    assert len(orders_of(Pool((True,) * 50, (None,) * 50), 8, 10, "seed")) == 10


# How sure.


def test_a_mean_has_an_interval_from_its_resamples():
    found = mean([0.0, 1.0] * 50, seed=1)
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.03)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.03)
    assert found == mean([0.0, 1.0] * 50, seed=1)
    assert (mean([0.3] * 9, seed=1).low, mean([0.3] * 9, seed=1).high) == (pytest.approx(0.3), pytest.approx(0.3))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([], 1),
        ([0, 0, 0], 1),
        ([1, 1, 1], 2 / 8),
        ([-0.5, -0.5, 0], 2 / 4),
        ([3, 1, -1], 6 / 8),  # sums of 3 or more: 3, 3, 5 and their negatives
        ([1] * 5 + [-1], 2 * (1 + 6) / 64),  # McNemar's exact test of 5 against 1
    ],
)
def test_p_of_few_differences_is_exact(differences, p):
    assert paired_test(differences, seed=0) == p


def test_p_of_many_differences_is_near_the_exact_one():
    # 15 against 5 of 20: 2 * sum of C(20, k) / 2^20 for k to 5
    exact = 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20
    assert paired_test([1] * 15 + [-1] * 5, seed=0) == pytest.approx(exact, abs=0.01)
    assert paired_test([1] * 40, seed=0) == 1 / 5001


def test_folds_part_the_units_and_are_kept_from_the_others():
    folds = apart(range(12), seed=4)
    assert len(folds) == 5
    assert sorted(unit for fold, _ in folds for unit in fold) == list(range(12))
    for fold, others in folds:
        assert sorted([*fold, *others]) == list(range(12))
    assert apart([7], seed=0) == [([7], [7])]
    assert apart([], seed=0) == []
