import dataclasses
import json

import pytest

from o1_reason import Expansion, Proposals, Score, State, Step, Usage


def test_usage_adds_up_field_by_field():
    total = Usage(1, 10, 5, 0.25) + Usage(2, 20, 7, 0.5)
    assert total == Usage(3, 30, 12, 0.75)
    assert total.tokens == 42


@pytest.mark.parametrize(
    ("a", "b", "total"), [(None, None, None), (None, 0.5, 0.5), (0.5, None, 0.5), (0.0, None, 0.0), (0.5, 0.5, 1.0)]
)
def test_a_cost_is_unknown_only_if_no_part_knows_one(a, b, total):
    assert (Usage(cost_usd=a) + Usage(cost_usd=b)).cost_usd == total


def test_usage_survives_json():
    usage = Usage(3, 2, 1, 0.5)
    assert Usage(**json.loads(json.dumps(usage.to_data()))) == usage


def test_a_transition_appends_the_step_and_leaves_the_state_alone():
    context = ({"role": "user", "content": "before"},)
    start = State("q", context=context)
    after = start + Step("a") + Step("b", terminal=True)
    assert after == State("q", (Step("a"), Step("b", terminal=True)), context)
    assert start.steps == ()


def test_the_text_of_a_state_has_one_step_per_line():
    assert State("q").text == ""
    assert (State("q") + Step("a") + Step("b")).text == "a\nb"


def test_states_with_a_context_can_be_keys_and_differ_by_it():
    one, other = State("q", context=({"role": "user", "content": "x"},)), State("q")
    assert len({one, other, State("q")}) == 2


@pytest.mark.parametrize("value", [Usage(), Step("a"), State("q"), Score((0.5,)), Proposals(()), Expansion(0)])
def test_values_cannot_be_changed(value):
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)
