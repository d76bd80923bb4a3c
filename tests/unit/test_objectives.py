"""The objectives of the process reward model: losses on numbers worked by hand, TD targets against brute force."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1_reason import Tree
from o1_reason.errors import ConfigurationError
from o1_reason.learn.objectives import (
    Backup,
    Objective,
    backup_of,
    classification,
    regression,
    td_targets,
    value_iteration,
)
from o1_reason.mdp import Step

torch = pytest.importorskip("torch", reason="the objectives are PyTorch's: pip install 'o1-reason[train]'")

NAN = math.nan


def test_classification_makes_labels_hard_and_leaves_out_what_has_none() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0], [5.0, 5.0, 5.0]])
    labels = torch.tensor([[0.25, 0.0, NAN], [NAN, NAN, NAN]])
    by_hand = (-math.log(1 / (1 + math.exp(0))) - math.log(1 - 1 / (1 + math.exp(-2)))) / 2
    assert classification(logits, labels).item() == pytest.approx(by_hand, rel=1e-6)
    assert classification(logits, labels, 0.5).item() == pytest.approx((math.log(2) + math.log(1 + math.e**2)) / 2)


def test_regression_on_soft_labels_is_not_the_loss_of_hard_ones() -> None:
    logits, labels = torch.tensor([0.4]), torch.tensor([0.9])
    v = 1 / (1 + math.exp(-0.4))
    assert regression(logits, labels).item() == pytest.approx(-(0.9 * math.log(v) + 0.1 * math.log(1 - v)), rel=1e-6)
    assert regression(logits, labels, "mse").item() == pytest.approx((v - 0.9) ** 2, rel=1e-5)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_regression_is_least_where_the_model_gives_the_mean_label(loss: str) -> None:
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0])
    grid = torch.linspace(0.01, 0.99, 99)
    losses = [Objective("regression", loss)(torch.logit(p).expand(4), labels).item() for p in grid]
    assert grid[losses.index(min(losses))].item() == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("name", ["classification", "regression", "td"])
def test_a_batch_without_a_label_has_loss_zero_and_a_gradient(name: str) -> None:
    logits = torch.tensor([0.3, 0.7], requires_grad=True)
    loss = Objective(name)(logits, torch.full((2,), NAN))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize(
    "wrong", [{"name": "ranking"}, {"loss": "hinge"}, {"threshold": 1.0}, {"gamma": 0.0}, {"gamma": 1.5}]
)
def test_an_objective_that_cannot_work_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigurationError):
        Objective(**wrong)


#        0
#    1       2         1: children 3 (right) and 4 (wrong); 2: child 5, never expanded; 6: a third step, wrong
#  3  4    5     6
SMALL = Backup(
    parents=(-1, 0, 0, 1, 1, 2, 0),
    rewards=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
    ends=(False, False, False, True, True, False, True),
)


def targets(values: list[float], backup: Backup, gamma: float = 1.0) -> list[float]:
    found = td_targets(
        torch.tensor(values, dtype=torch.float64),
        torch.tensor(backup.parents),
        torch.tensor(backup.rewards, dtype=torch.float64),
        torch.tensor(backup.ends),
        gamma,
    )
    return found.tolist()


def test_td_targets_of_a_small_tree_by_hand() -> None:
    found = targets([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], SMALL, gamma=0.5)
    assert found[:5] == pytest.approx([0.5 * 0.3, 0.5 * 1.0, 0.5 * 0.6, 1.0, 0.0])
    assert math.isnan(found[5]), "a leaf that was never expanded has no target"
    assert found[6] == 0.0, "an outcome counts, not what the network says about it"


def test_td_targets_carry_no_gradient_to_the_target_network() -> None:
    values = torch.full((7,), 0.5, requires_grad=True)
    found = td_targets(values, torch.tensor(SMALL.parents), torch.tensor(SMALL.rewards), torch.tensor(SMALL.ends))
    assert not found.requires_grad


def test_value_iteration_leaves_out_what_is_unknown() -> None:
    assert value_iteration(SMALL) == [1.0, 1.0, None, 1.0, 0.0, None, 0.0]
    assert value_iteration(SMALL, 0.5, [0.9] * 7)[:3] == pytest.approx([0.25, 0.5, 0.45])


@st.composite
def trees(draw: st.DrawFn) -> Backup:
    """Random trees in which some leaves are ends and inner steps may earn something."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    size = draw(st.integers(1, 40))
    parents = (-1, *(rng.randrange(i) for i in range(1, size)))
    inner = set(parents)
    ends = tuple(i not in inner and rng.random() < 0.7 for i in range(size))
    rewards = tuple(rng.choice([0.0, 1.0]) if end else rng.choice([0.0, 0.0, 0.1]) for end in ends)
    return Backup(parents, rewards, ends)


def brute_force(backup: Backup, i: int, gamma: float, leaves: list[float]) -> float:
    """The best discounted sum over every way down from node `i`, by enumeration."""
    children = [j for j, parent in enumerate(backup.parents) if parent == i]
    if backup.ends[i]:
        return backup.rewards[i]
    if not children:
        return leaves[i]
    return max(backup.rewards[i] + gamma * brute_force(backup, child, gamma, leaves) for child in children)


@given(trees(), st.sampled_from([1.0, 0.9, 0.5]))
@settings(max_examples=100, deadline=None)
def test_repeated_td_targets_reach_the_exact_values_of_any_tree(backup: Backup, gamma: float) -> None:
    size = len(backup.parents)
    rng = random.Random(size)
    leaves = [rng.random() for _ in range(size)]
    exact = [brute_force(backup, i, gamma, leaves) for i in range(size)]
    assert value_iteration(backup, gamma, leaves) == pytest.approx(exact)
    values = [rng.random() for _ in range(size)]
    for _ in range(size):  # what a model that fits its targets perfectly would go through
        found = targets(values, backup, gamma)
        values = [leaf if math.isnan(target) else target for target, leaf in zip(found, leaves, strict=True)]
    assert values == pytest.approx(exact)
    assert targets(exact, backup, gamma) == pytest.approx(
        [math.nan if math.isnan(t) else e for t, e in zip(found, exact, strict=True)], nan_ok=True
    )


@given(trees())
@settings(max_examples=50, deadline=None)
def test_paths_pass_every_step_from_its_beginning(backup: Backup) -> None:
    paths = backup.paths()
    assert {node for path in paths for node in path} == set(range(1, len(backup.parents)))
    for path in paths:
        assert [backup.parents[node] for node in path] == [0, *path[:-1]]


def test_a_search_tree_is_backed_up_by_its_known_outcomes() -> None:
    tree = Tree("q")
    left, _ = tree.add(0, Step("a"))
    tree.add(left.id, Step("b", True, "1"))
    tree.add(left.id, Step("c", True, "2"))
    tree.add(0, Step("d", True, "3"))
    backup = backup_of(tree, {2: 1.0, 3: 0.0}.get)
    assert backup == Backup((-1, 0, 1, 1, 0), (0.0, 0.0, 1.0, 0.0, 0.0), (False, False, True, True, False))
    assert value_iteration(backup) == [1.0, 1.0, 1.0, 0.0, None]


def test_a_model_trained_on_td_targets_learns_the_exact_values() -> None:
    """A table in place of a network: descent on a target that is refreshed ends at the fixed point."""
    logits = torch.zeros(7, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    objective = Objective("td")
    parents, rewards, ends = torch.tensor(SMALL.parents), torch.tensor(SMALL.rewards), torch.tensor(SMALL.ends)
    for step in range(300):
        if step % 50 == 0:
            frozen = logits.detach().sigmoid()
        optimizer.zero_grad()
        objective(logits, td_targets(frozen, parents, rewards, ends)).backward()
        optimizer.step()
    values = logits.sigmoid().tolist()
    assert values[:2] == pytest.approx([1.0, 1.0], abs=0.05)
    assert values[2] == pytest.approx(0.5, abs=0.05), "its only child was never expanded and stays at 0.5"
    assert values[6] == pytest.approx(0.0, abs=0.05)
