import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1_reason import State, Step, Tree
from o1_reason.tree import best

STEPS = {
    "a": Step("a", logprob=-0.5, tokens=3),
    "b": Step("b"),
    "A": Step("A", True, "1"),
    "B": Step("B", True, "1.0"),  # the same answer as A
    "C": Step("C", True, "x"),
    "N": Step("N", True),  # finished without an answer
}


PICK = st.integers(0, 1000)


def operations(longest):
    """Orders, returns and kills; candidates have up to `longest` steps."""
    inner = st.lists(st.sampled_from("ab"), max_size=longest - 1)
    candidate = st.builds(lambda letters, last: [STEPS[x] for x in [*letters, last]], inner, st.sampled_from("abABCN"))
    order = st.tuples(st.just("order"), PICK, st.lists(candidate, max_size=4))
    back = st.tuples(st.just("return"), PICK, st.none())
    kill = st.tuples(st.just("kill"), PICK, st.none())
    return st.lists(st.one_of(order, back, back, kill), max_size=40)


class Played:
    """A tree after random operations, and what was done to it."""

    def __init__(self, operations):
        self.tree = Tree("q", ({"role": "user", "content": "c"},), seed=7)
        self.drawn: dict[int, int] = {}
        self.samples: dict[int, int] = {}
        self.out: list[tuple[int, int, list[list[Step]]]] = []
        for kind, pick, found in operations:
            if kind == "order":
                self.order(pick, found)
            elif kind == "return" and self.out:
                self.back(pick)
            elif kind == "kill":
                self.kill(pick)

    def order(self, pick, found):
        able = [node for node in self.tree.nodes if node.open and not node.closed]
        if able:
            node, n = able[pick % len(able)], max(1, len(found))
            self.tree.order(node, n)
            self.drawn[node.id] = self.drawn.get(node.id, 0) + n
            self.out.append((node.id, n, found))

    def back(self, pick):
        at, n, found = self.out.pop(pick % len(self.out))
        for candidate in found:
            parent = at
            for index, step in enumerate(candidate):
                node, new = self.tree.add(parent, step, passing=index > 0)
                assert new == (node.id not in self.samples)
                self.samples[node.id] = self.samples.get(node.id, 0) + 1
                if index:
                    self.drawn[parent] = self.drawn.get(parent, 0) + 1
                parent = node.id
        self.tree.returned(self.tree.nodes[at], n)
        self.tree.settled(self.tree.nodes[at])

    def kill(self, pick):
        able = [node for node in self.tree.nodes[1:] if not node.pending]
        if able:
            self.tree.kill(able[pick % len(able)], "why")


def children(tree, i):
    return [node.id for node in tree.nodes if node.parent == i]


def below(tree, i):
    return [i, *(k for child in children(tree, i) for k in below(tree, child))]


def ends(tree):
    return {i for i in tree.ends if tree.nodes[i].samples > tree.nodes[i].drawn}


def indexes(tree):
    """All that a tree keeps beside its nodes' own data."""
    votes = {key: count for key, count in tree.votes.items() if count}
    return tree.levels, ends(tree), tree.terminals, votes, tree.finished


@settings(max_examples=150)
@given(operations(longest=4))
def test_indexes_equal_a_naive_recomputation_at_any_moment(operations):
    played = Played(operations)
    tree, nodes = played.tree, played.tree.nodes
    depth = {0: 0}
    for node in nodes[1:]:
        depth[node.id] = depth[node.parent] + 1
    assert [node.depth for node in nodes] == list(depth.values())
    assert tree.levels == [[i for i in depth if depth[i] == d] for d in range(max(depth.values()) + 1)]
    assert all(node.children == children(tree, node.id) for node in nodes)
    assert all(node.samples == played.samples[node.id] for node in nodes[1:])
    assert all(node.drawn == played.drawn.get(node.id, 0) for node in nodes)

    finished = [node for node in nodes if node.step and node.step.terminal]
    assert tree.terminals == [node.id for node in finished]
    assert tree.finished == sum(node.samples for node in finished)
    votes = {}
    for node in finished:
        if node.dead is None and node.step.answer is not None:
            key = {"1": "1", "1.0": "1", "x": "x"}[node.step.answer]
            votes[key] = votes.get(key, 0) + node.samples
    assert {key: count for key, count in tree.votes.items() if count} == votes

    assert ends(tree) == {node.id for node in nodes[1:] if node.open and node.samples > node.drawn}
    assert tree.in_flight == len(played.out)
    for node in nodes:
        assert node.pending == sum(n for at, n, _ in played.out if at == node.id)
        assert node.virtual == sum(at in below(tree, node.id) for at, _, _ in played.out)


@settings(max_examples=150)
@given(operations(longest=1))
def test_closed_is_what_has_nothing_left_to_expand_below(operations):
    played = Played(operations)
    closed = {}
    for node in reversed(played.tree.nodes):
        explored = bool(node.drawn) and not node.pending and all(closed[i] for i in node.children)
        closed[node.id] = node.terminal or node.dead is not None or explored
    assert {node.id: node.closed for node in played.tree.nodes} == closed
    while played.out:
        played.back(0)
    again = Tree.from_data(played.tree.to_data())
    assert [node.closed for node in again.nodes] == [node.closed for node in played.tree.nodes]


@settings(max_examples=100)
@given(operations(longest=4))
def test_plain_data_round_trips_with_every_index(operations):
    played = Played(operations)
    while played.out:
        played.back(0)
    tree = played.tree
    again = Tree.from_data(json.loads(json.dumps(tree.to_data())))
    assert again == tree
    assert indexes(again) == indexes(tree)
    assert again.state(len(tree) - 1) == tree.state(len(tree) - 1)


def test_a_chain_of_five_thousand_steps_needs_no_recursion():
    tree = Tree("q")
    for depth in range(5000):
        node = tree.nodes[depth]
        tree.order(node, 1)
        tree.add(depth, Step(f"step {depth}"))
        tree.returned(node, 1)
        tree.settled(node)
    again = Tree.from_data(json.loads(json.dumps(tree.to_data())))
    assert again == tree
    assert len(again.state(5000).steps) == 5000
    assert again.path(5000) == list(range(5001))
    assert sum(1 for _ in again.walk()) == 5001
    again.kill(again.nodes[5000], "the end")
    assert again.nodes[0].closed


def test_samples_in_flight_are_in_plain_data_as_if_never_drawn():
    tree = Tree("q")
    tree.order(tree.nodes[0], 3)
    assert Tree.from_data(tree.to_data()).nodes[0].drawn == 0


def test_a_step_and_a_finished_step_of_the_same_text_are_two_nodes():
    tree = Tree("q")
    one, _ = tree.add(0, Step("24"))
    other, new = tree.add(0, Step("24", terminal=True, answer="24"))
    assert new
    assert one is not other


def test_the_same_step_elsewhere_is_another_node():
    tree = Tree("q")
    a, _ = tree.add(0, Step("a"))
    below_a, new = tree.add(a.id, Step("a"))
    assert new
    assert tree.path(below_a.id) == [0, 1, 2]
    assert tree.state(below_a.id) == State("q", (Step("a"), Step("a")))


def test_a_closed_node_that_yields_a_new_step_is_open_again_up_to_the_root():
    tree = Tree("q")
    tree.order(tree.nodes[0], 1)
    a, _ = tree.add(0, Step("a"))
    tree.returned(tree.nodes[0], 1)
    tree.settled(tree.nodes[0])
    tree.order(a, 1)
    tree.add(a.id, Step("= 1", True, "1"))
    tree.returned(a, 1)
    tree.settled(a)
    assert tree.nodes[0].closed
    tree.order(a, 1)
    tree.add(a.id, Step("b"))
    tree.returned(a, 1)
    tree.settled(a)
    assert not a.closed
    assert not tree.nodes[0].closed


def test_a_dead_answer_has_no_votes_and_gains_none():
    tree = Tree("q")
    step = Step("= 1", True, "1")
    node, _ = tree.add(0, step)
    tree.add(0, step)
    tree.kill(node, "refuted")
    tree.kill(node, "again")
    tree.add(0, step)
    assert tree.votes["1"] == 0
    assert node.dead == "refuted"


def test_rewards_of_a_path_leave_unscored_steps_out():
    tree = Tree("q")
    for parent, reward in enumerate([0.25, None, 0.75]):
        node, _ = tree.add(parent, Step("s"))
        node.reward = reward
    assert tree.rewards(3) == [0.25, 0.75]


def test_a_walk_goes_depth_first_children_oldest_first():
    tree = Tree("q")
    for parent, text in [(0, "a"), (0, "b"), (1, "c"), (2, "d"), (1, "e")]:
        tree.add(parent, Step(text))
    assert [node.id for node in tree.walk()] == [0, 1, 3, 5, 2, 4]
    assert [node.id for node in tree.walk(1)] == [1, 3, 5]


def test_trees_differ_by_any_part_of_their_data():
    tree = Tree("q")
    node, _ = tree.add(0, Step("a"))
    other = Tree.from_data(tree.to_data())
    node.value = 0.5
    assert tree != other
    assert tree != "q"
    with pytest.raises(TypeError):
        hash(tree)


def test_of_equally_good_ids_the_first_is_best():
    assert best([3, 1, 2], key=lambda i: {1: 5, 2: 5, 3: 4}[i]) == 1
    assert best([], key=lambda i: i) is None
