import pytest

from o1_reason import ConfigurationError, Step, Tree
from o1_reason.aggregate import Ranking, answer_of, check_aggregate, check_vote, path_score


def grown(*paths):
    """A tree of single-step answers: (answer, reward, samples), each below the root."""
    tree = Tree("q")
    for text, (answer, reward, samples) in enumerate(paths):
        for _ in range(samples):
            node, _ = tree.add(0, Step(str(text), True, answer))
        node.reward = reward
    return tree


@pytest.fixture
def chain():
    tree = Tree("q")
    for parent, reward in enumerate([0.5, 0.8, 0.6]):
        node, _ = tree.add(parent, Step("s"))
        node.reward = reward
    return tree


@pytest.mark.parametrize(("aggregate", "score"), [("last", 0.6), ("min", 0.5), ("prod", 0.24), ("mean", 1.9 / 3)])
def test_step_rewards_become_one_score(chain, aggregate, score):
    assert path_score(chain, 3, aggregate) == pytest.approx(score)


def test_unscored_steps_do_not_count(chain):
    chain.nodes[1].reward = None
    assert path_score(chain, 3, "min") == 0.6


@pytest.mark.parametrize("aggregate", ["last", "min", "prod", "mean"])
def test_a_path_whose_end_is_unscored_has_no_score(chain, aggregate):
    chain.nodes[3].reward = None
    assert path_score(chain, 3, aggregate) is None
    assert path_score(chain, 0, aggregate) is None


def test_without_a_vote_an_answer_is_worth_its_best_path():
    tree = grown(("1", 0.4, 9), ("2", 0.7, 1), ("1.0", 0.6, 1))
    ranking = Ranking(tree)
    assert ranking.answers == (("2", 0.7), ("1.0", 0.6))
    assert ranking.node == 2
    assert ranking.confidence_of(tree, 1) == 0.6


def test_a_majority_is_the_share_of_the_samples():
    ranking = Ranking(grown(("1", 0.1, 2), ("2", 0.9, 1), ("01", None, 1)), vote="majority")
    assert ranking.answers == (("1", 0.75), ("2", 0.25))


def test_a_weighted_vote_is_the_share_of_the_summed_scores():
    ranking = Ranking(grown(("1", 0.2, 3), ("2", 0.9, 2), ("3", None, 5)), vote="weighted")
    assert [answer for answer, _ in ranking.answers] == ["2", "1", "3"]
    assert [worth for _, worth in ranking.answers] == pytest.approx([1.8 / 2.4, 0.6 / 2.4, 0])


def test_a_weighted_vote_without_scores_counts_heads():
    assert Ranking(grown(("1", None, 3), ("2", None, 1)), vote="weighted").answers == (("1", 0.75), ("2", 0.25))


def test_equal_worth_is_ordered_by_votes_then_by_age():
    assert Ranking(grown(("1", 0.5, 1), ("2", 0.5, 2), ("3", 0.5, 1))).node == 2
    assert Ranking(grown(("1", 0.5, 1), ("2", 0.5, 1))).node == 1


def test_unscored_answers_rank_behind_scored_ones_by_votes():
    ranking = Ranking(grown(("1", None, 1), ("2", None, 5), ("3", 0.1, 1)))
    assert [answer for answer, _ in ranking.answers] == ["3", "2", "1"]


def test_dead_paths_and_paths_without_an_answer_do_not_count():
    tree = grown(("1", 0.9, 5), (None, 0.9, 5), ("2", 0.1, 1))
    tree.kill(tree.nodes[1], "refuted")
    assert Ranking(tree, vote="majority").answers == (("2", 1.0),)


def test_without_verifier_and_vote_there_is_an_order_but_no_confidence():
    tree = grown(("1", None, 3), ("2", None, 1))
    ranking = Ranking(tree)
    assert ranking.answers == (("1", 0.75), ("2", 0.25))
    assert ranking.confidence_of(tree, 1) is None


def test_a_tree_without_answers_ranks_nothing():
    ranking = Ranking(Tree("q"), vote="majority")
    assert ranking.answers == ()
    assert ranking.node is None


def test_an_answer_reads_as_the_policy_wrote_it():
    assert answer_of(grown((" 1.0 ", None, 1)), 1) == "1.0"
    assert answer_of(Tree("q"), 0) is None


@pytest.mark.parametrize("check", [check_aggregate, check_vote])
def test_unknown_names_are_refused_with_the_known_ones(check):
    with pytest.raises(ConfigurationError, match=r"must be one of .*, .*; got 'best'"):
        check("best")
