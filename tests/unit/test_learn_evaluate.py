import json
import random
from dataclasses import replace

import pytest
from sums import Learner, Policy, RewardModel, Sum, goal

from o1_reason import BestOfN, Budget
from o1_reason.errors import ConfigurationError
from o1_reason.learn.evaluate import Judged, Point, Side, answers, curve, greedy, judge, point, share
from o1_reason.learn.gate import Answered


@pytest.fixture
def weights(tmp_path):
    Learner().begin(tmp_path, seed=0, scale="", report=lambda line: None)
    return tmp_path


@pytest.fixture
def side(weights):
    return Side(Policy(weights / "policy.json"), RewardModel(weights / "prm.json"), Sum())


QUESTIONS = Learner().problems("test", 30, 0)


class Counted(Policy):
    calls = 0

    async def propose(self, *arguments, **named):
        type(self).calls += 1
        return await super().propose(*arguments, **named)


async def test_answers_count_what_is_right_and_never_pass_the_budget(side):
    found = await answers(QUESTIONS, replace(side, tries=3), BestOfN(8), Budget(max_tokens=40))
    assert list(found) == QUESTIONS
    assert {one.tries for one in found.values()} == {3}
    assert all(0 < one.tokens <= 3 * 40 for one in found.values())
    assert 0 < sum(one.right for one in found.values()) < 90


async def test_the_order_in_which_searches_end_does_not_matter(side):
    one = await answers(QUESTIONS, replace(side, at_once=1), BestOfN(4), Budget())
    assert await answers(QUESTIONS, replace(side, at_once=9), BestOfN(4), Budget()) == one


async def test_an_evaluation_that_is_done_again_pays_nothing(side, weights, tmp_path):
    Counted.calls = 0
    counted = replace(side, policy=Counted(weights / "policy.json"), ledger=str(tmp_path / "calls.sqlite"))
    first = await answers(QUESTIONS, counted, BestOfN(4), Budget(max_tokens=60))
    paid = Counted.calls
    assert paid == len(QUESTIONS)
    assert await answers(QUESTIONS, counted, BestOfN(4), Budget(max_tokens=60)) == first
    assert Counted.calls == paid


async def test_a_failing_policy_fails_the_evaluation(side, weights):
    class Down(Policy):
        async def propose(self, *arguments, **named):
            raise OSError("down")

    with pytest.raises(Exception, match="down"):
        await answers(QUESTIONS, replace(side, policy=Down(weights / "policy.json")), BestOfN(4), Budget())


async def test_a_problem_that_comes_twice_is_refused(side):
    with pytest.raises(ConfigurationError, match="twice"):
        await answers([*QUESTIONS, QUESTIONS[0]], side, BestOfN(4), Budget())


async def test_greedy_is_the_policys_own_best_path(side):
    found = await greedy(QUESTIONS, side)
    chances, right = side.policy.chances, 0
    for question in QUESTIONS:
        missing = goal(question)
        for left in (4, 3, 2, 1):
            weights = chances[f"{missing}/{left}"]
            missing -= weights.index(max(weights))
        right += missing == 0
    assert (found.accuracy.value, found.tries) == (right / len(QUESTIONS), 1)


async def test_with_a_perfect_reward_model_more_tokens_find_more(side, weights):
    perfect = {f"{m}/{n}": float(0 <= m <= 3 * n) for m in range(-12, 13) for n in range(5)}
    (weights / "prm.json").write_text(json.dumps(perfect))
    told = []
    found = await curve(QUESTIONS[:12], side, BestOfN(1024), (20, 200, 9000), lambda *far: told.append(far))
    right = [one.accuracy.value for one in found]
    assert right[0] < right[1] < right[2] == 1
    assert [one.budget for one in found] == [20, 200, 9000]
    assert [one.tokens for one in found] == sorted(one.tokens for one in found)
    assert told == [(n, 36) for n in range(1, 37)]
    judged = await judge(QUESTIONS, side, Sum())
    assert (judged.auc.value, judged.within, judged.calibration.ece, judged.exact) == (1, 1, 0, True)


async def test_the_reward_model_is_judged_state_by_state_against_the_truth(side):
    judged = await judge(QUESTIONS, side, Sum(), samples=5)
    assert judged.problems == len(QUESTIONS)
    assert len(QUESTIONS) * 5 < judged.states <= len(QUESTIONS) * 20
    assert 0.3 < judged.auc.value < 0.7, "a random one"
    ends = await judge(QUESTIONS, side, None, samples=5)
    assert (ends.exact, ends.states < judged.states / 2) == (False, True)


async def test_a_worthless_policy_is_told_of(side, weights):
    class Mute(Policy):
        async def propose(self, *arguments, **named):
            found = await super().propose(*arguments, **named)
            return type(found)((), found.usage)

    with pytest.raises(ConfigurationError, match="train it further"):
        await judge(QUESTIONS, replace(side, policy=Mute(weights / "policy.json")), Sum())


async def test_figures_survive_json(side):
    found = point(await answers(QUESTIONS, side, BestOfN(4), Budget(max_tokens=60)), 60)
    assert Point.from_data(json.loads(json.dumps(found.to_data()))) == found
    judged = await judge(QUESTIONS, side, Sum())
    assert Judged.from_data(json.loads(json.dumps(judged.to_data()))) == judged


def test_a_point_adds_up():
    found = point({"a": Answered(2, 2, 10), "b": Answered(0, 2, 30), "c": Answered(1, 2, 20)}, 20)
    assert (found.accuracy.value, found.tokens, found.problems, found.tries) == (0.5, 10, 3, 2)


@pytest.mark.parametrize("chance", [0.03, 0.5, 0.9])
def test_the_interval_of_an_accuracy_holds_the_truth_as_often_as_it_says(chance):
    dice = random.Random(str(chance))
    found = [share([float(dice.random() < chance) for _ in range(80)]) for _ in range(1000)]
    assert sum(one.low <= chance <= one.high for one in found) >= 930
    assert share([1.0] * 20).low < 0.9, "all right is not certainty"
