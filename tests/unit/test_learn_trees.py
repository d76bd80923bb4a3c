import pytest

from o1_reason import MCTS, Budget, ConfigurationError, Step
from o1_reason.learn import (
    GoldChecker,
    Problem,
    TraceStore,
    VerifierChecker,
    collect,
    outcomes,
    preference_pairs,
    solutions,
    tree_outcomes,
    tree_values,
)
from o1_reason.tree import ROOT, Tree


def trace(gold="yes"):
    """root -> a (V .8, 4 visits) -> yes (3 samples), no (1);  -> b (V .2, 2 visits) -> no; -> c (unvisited, r .6)."""
    tree = Tree("q", ({"role": "user", "content": "Before."},))
    a, b = tree.add(ROOT, Step("a"))[0], tree.add(ROOT, Step("b"))[0]
    c = tree.add(ROOT, Step("c"))[0]
    yes, no = tree.add(a.id, Step("= yes", True, "yes"))[0], tree.add(a.id, Step("= no", True, "no"))[0]
    end = tree.add(b.id, Step("= no", True, "no"))[0]
    for node, value, visits in ((tree.nodes[ROOT], 0.6, 6), (a, 0.8, 4), (b, 0.2, 2), (yes, 1.0, 2), (no, 0.0, 1)):
        node.value, node.visits = value, visits
    c.reward = 0.6
    yes.samples = 3
    tree.kill(end, "no score")
    return {"id": "t", "question": "q", "context": list(tree.context), "gold": gold, "tree": tree.to_data()}


def seen(rows):
    return [(row["completions"], row["labels"], row["rollouts"]) for row in rows]


def test_values_of_nodes_with_enough_visits_become_labels():
    rows = list(tree_values(trace()))
    assert seen(rows) == [(["b"], [0.2], [2]), (["a", "= yes"], [0.8, 1.0], [4, 2])]
    assert {row["source"] for row in rows} == {"mcts"}
    assert {row["prompt"] for row in rows} == {"Before.\n\nq"}
    assert seen(tree_values(trace(), min_visits=4)) == [(["a"], [0.8], [4])]
    assert seen(tree_values(trace(), min_visits=9)) == []


async def test_outcomes_below_a_node_become_labels_weighed_by_samples():
    rows = [row async for row in tree_outcomes(trace(), GoldChecker())]
    assert seen(rows) == [
        (["a", "= yes"], [0.75, 1.0], [4, 3]),
        (["a", "= no"], [None, 0.0], [None, 1]),
        (["b", "= no"], [0.0, 0.0], [1, 1]),
    ]
    assert (await outcomes(trace(), GoldChecker()))[ROOT] == (0.6, 5)
    with pytest.raises(ConfigurationError, match="give the problem a gold answer"):
        await outcomes(trace(gold=None), GoldChecker())


async def test_right_finished_paths_are_solutions():
    (row,) = [row async for row in solutions(trace(), GoldChecker(), separator="\n\n")]
    assert (row["prompt"], row["completion"], row["steps"]) == ("Before.\n\nq\n\n", "a\n\n= yes", ["a", "= yes"])
    assert [row["steps"] async for row in solutions(trace("no"), GoldChecker(), keep=1)] == [["a", "= no"]]


def test_siblings_far_enough_apart_are_preferences_widest_first():
    rows = list(preference_pairs(trace(), margin=0.2))
    assert [(row["prompt"], row["chosen"], row["rejected"], row["margin"]) for row in rows] == [
        ("Before.\n\nq\na\n", "= yes", "= no", 1.0),
        ("Before.\n\nq\n", "a", "b", pytest.approx(0.6)),
        ("Before.\n\nq\n", "a", "c", pytest.approx(0.2)),
    ]
    assert len(list(preference_pairs(trace(), margin=0.5))) == 2
    assert [row["margin"] for row in preference_pairs(trace(), margin=0.1, keep=1)] == [1.0]


async def test_preferences_can_go_by_outcome_and_equal_siblings_are_none():
    values = {i: share for i, (share, _) in (await outcomes(trace(), GoldChecker())).items()}
    pairs = [(row["chosen"], row["rejected"]) for row in preference_pairs(trace(), margin=0.5, values=values)]
    assert pairs == [("= yes", "= no"), ("a", "b")]
    assert not list(preference_pairs(trace(), margin=0.0, values=dict.fromkeys(range(7), 0.5)))


async def test_a_search_of_the_embedded_reasoner_gives_all_kinds_of_rows(tmp_path):
    from o1_reason_embedded import RuleVerifier

    store, rules = TraceStore(tmp_path / "traces.jsonl"), VerifierChecker(RuleVerifier())
    await collect([Problem("4 5 6 10")], "embedded", "embedded", MCTS(simulations=12), Budget(), rules, store)
    (found,) = store
    assert list(tree_values(found))
    assert list(preference_pairs(found))
    right = [row async for row in solutions(found, rules)]
    assert right
    assert all(row["completion"].endswith("(left: 24)") for row in right)
    shares = {tuple(row["completions"]): row["labels"][-1] async for row in tree_outcomes(found, rules)}
    assert all(shares[tuple(row["steps"])] == 1.0 for row in right)
