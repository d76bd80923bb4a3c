"""GRPO's advantages on a group worked by hand, and the loss they enter."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1_reason.errors import ConfigurationError
from o1_reason.learn.advantages import (
    EPSILON,
    Weights,
    advantages,
    normalised,
    spread,
    step_advantages,
)

GROUP = [[0.2, 0.8], [0.5, 0.5, 1.0], [0.0]]  # mean 0.5; squared deviations .09 .09 0 0 .25 .25, sum 0.68
STD = math.sqrt(0.68 / 5)


def test_step_advantages_equal_the_formula_on_a_group_worked_by_hand() -> None:
    scale = STD + EPSILON
    expected = [
        [(-0.3 + 0.3) / scale, 0.3 / scale],
        [(0.0 + 0.0 + 0.5) / scale, 0.5 / scale, 0.5 / scale],
        [-0.5 / scale],
    ]
    for found, by_hand in zip(step_advantages(GROUP), expected, strict=True):
        assert found == pytest.approx(by_hand)
    assert step_advantages(GROUP)[1][0] == pytest.approx(1.355486, abs=1e-3)


def test_outcome_advantages_are_the_normalised_outcomes_for_every_step() -> None:
    found = advantages(GROUP, [1.0, 0.0, 0.0], Weights(process=0, outcome=1))
    z = (1 - 1 / 3) / (statistics.stdev([1, 0, 0]) + EPSILON)
    assert found[0] == pytest.approx([z, z])
    assert found[1] == pytest.approx([-z / 2] * 3)


def test_weights_add_the_two_up() -> None:
    both = advantages(GROUP, [1.0, 0.0, 0.0], Weights(0.5, 2.0))
    process, outcome = step_advantages(GROUP), advantages(GROUP, [1.0, 0.0, 0.0], Weights(0, 1))
    for mixed, p, o in zip(both, process, outcome, strict=True):
        assert mixed == pytest.approx([0.5 * a + 2 * b for a, b in zip(p, o, strict=True)])


@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_a_group_in_which_nothing_differs_teaches_nothing(reward: float) -> None:
    found = advantages([[reward] * 3, [reward] * 2], [1.0, 1.0])
    assert found == [[0.0] * 3, [0.0] * 2]
    assert normalised([0.7]) == [0.0]


def test_an_unknown_outcome_neither_counts_nor_moves_the_others() -> None:
    found = advantages([[0.5]] * 3, [1.0, math.nan, 0.0], Weights(0, 1))
    assert found[1] == [0.0]
    assert [found[0], found[2]] == advantages([[0.5]] * 2, [1.0, 0.0], Weights(0, 1))


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=6))
def test_first_differences_of_step_advantages_are_the_normalised_rewards(rewards: list[list[float]]) -> None:
    flat = [reward for steps in rewards for reward in steps]
    found = step_advantages(rewards)
    back = [a - b for steps in found for a, b in zip(steps, [*steps[1:], 0.0], strict=True)]
    assert back == pytest.approx(normalised(flat), abs=1e-6)
    assert math.fsum(back) == pytest.approx(0, abs=1e-6)


def test_tokens_take_the_advantage_of_their_step_and_the_end_that_of_the_last() -> None:
    assert spread([3.0, 1.0], [2, 5], 7) == [3, 3, 1, 1, 1, 1, 1]
    assert spread([3.0, 1.0], [2, 5], 4) == [3, 3, 1, 1], "what was cut off has no tokens"
    assert spread([], [], 2) == [0, 0]
    with pytest.raises(ConfigurationError):
        spread([1.0], [1, 2], 3)


@pytest.mark.parametrize("wrong", [(-1.0, 1.0), (0.0, 0.0), (math.nan, 1.0)])
def test_weights_that_teach_nothing_are_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ConfigurationError):
        Weights(*wrong)


def test_k3_is_never_negative_and_its_mean_is_the_divergence() -> None:
    torch = pytest.importorskip("torch", reason="losses are PyTorch's: pip install 'o1-reason[train]'")
    from o1_reason.learn.advantages import k3

    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    estimate = k3(p.log(), q.log())
    assert (estimate >= 0).all()
    assert (p * estimate).sum().item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)
    assert k3(p.log(), p.log()).abs().max().item() < 1e-6


def test_the_loss_clips_what_has_moved_too_far_and_charges_for_divergence() -> None:
    torch = pytest.importorskip("torch", reason="losses are PyTorch's: pip install 'o1-reason[train]'")
    from o1_reason.learn.advantages import policy_loss

    old = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    now = torch.log(torch.tensor([[0.75, 0.5], [0.25, 0.5]])).requires_grad_()
    gains = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = policy_loss(now, old, old, gains, mask, kl=0.0)
    assert loss.item() == pytest.approx((-(1.2 + 1.0) / 2 + 0.8) / 2)  # ratios 1.5 -> 1.2, and 0.5 -> 0.8
    loss.backward()
    assert now.grad is not None
    assert now.grad[0, 0] == 0 and now.grad[1, 0] == 0, "clipped"
    assert now.grad[1, 1] == 0, "masked"
    assert now.grad[0, 1] < 0
    dearer = policy_loss(now, old, old, gains, mask, kl=1.0)
    charge = [[2 / 3 - math.log(2 / 3) - 1, 0.0], [2 - math.log(2) - 1]]
    assert (dearer - loss).item() == pytest.approx((sum(charge[0]) / 2 + charge[1][0]) / 2, rel=1e-5)
