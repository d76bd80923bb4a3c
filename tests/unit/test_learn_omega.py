"""OmegaPRM against oracles: a policy whose first error and success rates are known, and numbers worked by hand."""

import math
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1_reason import ConfigurationError, Proposals, Step, Usage
from o1_reason.learn import GoldChecker, OmegaPRM, Problem, RecordStore, label
from o1_reason.learn.omega_prm import Candidate, Estimate, OmegaSearch
from o1_reason.learn.rollouts import Roller, Rollout, texts
from o1_reason.testing import ScriptedPolicy

PROBLEM = Problem("q", "right")


@dataclass
class Erring:
    """Solutions of `length` steps. From a state without an error all samples of a call end right but the last, which
    makes its error at step `error` of the solution (later, where that is past); after an error all end wrong.

    Texts tell solutions apart, so that samples of different states never coincide.
    """

    length: int
    error: int
    identity: str = "erring"
    calls: list[tuple[str, ...]] = field(default_factory=list)
    samples: int = 0

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        self.calls.append(texts(state))
        lost = any("error" in step.text for step in state.steps)
        ways = [self._way(state, lost or i == n - 1, lost) for i in range(n)]
        return Proposals(tuple(ways), Usage(1, 1, n))

    def _way(self, state, wrong, lost):
        self.samples += 1
        depth = len(state.steps)
        error = max(self.error, depth + 1) if wrong and not lost else None
        steps = [
            Step(f"{self.samples}:{at}{' error' if at == error else ''}", at == self.length, None)
            for at in range(depth + 1, self.length + 1)
        ]
        steps[-1] = Step(steps[-1].text, True, "wrong" if wrong else "right")
        return tuple(steps)


def search_of(policy, method):
    return OmegaSearch(method, PROBLEM, Roller(policy, GoldChecker()))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 16])
async def test_the_first_error_is_found_with_k_log_m_rollouts(length):
    for error in range(1, length + 1):
        k, policy = 4, Erring(length, error)
        search = search_of(policy, OmegaPRM(k, searches=1))
        await search.run()
        (selected,) = search.selected
        steps = tuple(step.text for step in selected.rollout.steps)
        label_of = {path: value for path, (value, _) in search.labels.items()}
        assert label_of[steps[:error]] == 0.0
        assert error == 1 or label_of[steps[: error - 1]] == 0.75
        assert all(value > 0 for path, value in label_of.items() if len(path) < error)
        assert search.drawn == search.roller.drawn <= k * (math.ceil(math.log2(length)) + 1)
        assert search.drawn - k <= k * math.ceil(math.log2(length)), "without those of the question itself"


@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 5), st.integers(1, 30))
async def test_no_rollout_is_searched_twice_and_no_prefix_is_tried_twice(length, error, k, searches):
    policy = Erring(length, min(error, length))
    search = search_of(policy, OmegaPRM(k, searches=searches))
    await search.run()
    pairs = [(texts(one.estimate.state), tuple(s.text for s in one.rollout.steps)) for one in search.selected]
    assert len(pairs) == len(set(pairs))
    assert not {id(one) for one in search.pool} & {id(one) for one in search.selected}
    assert max(Counter(policy.calls).values()) == 1
    assert len(policy.calls) * k == search.drawn
    assert sum(estimate.visits for estimate in search.estimates.values()) == len(search.selected) <= searches


async def test_what_rollouts_share_is_tried_once_and_equal_rollouts_are_one():
    def way(*texts_, answer):
        *steps, last = texts_
        return (*map(Step, steps), Step(last, True, answer))

    right, wrong = way("a", "b", "c", "d", answer="right"), way("a", "b", "x", "y", answer="wrong")
    other = way("a", "b", "x", "z", answer="wrong")
    after = [right[2:], wrong[2:]]
    policy = ScriptedPolicy({(): [right, wrong, wrong, other], ("a", "b"): after, ("a", "b", "x"): [wrong[3:]]})
    search = search_of(policy, OmegaPRM(4))
    await search.run()
    assert [path for path, _, _ in policy.calls] == [(), ("a", "b"), ("a", "b", "x")]
    assert [(len(one.estimate.state.steps), one.rollout.steps[-1].text) for one in search.selected] == [
        (0, "y"), (2, "y"), (0, "z"),
    ]  # fmt: skip
    assert search.labels == {
        (): (0.25, 4), ("a", "b", "c", "d"): (1.0, 1), ("a", "b"): (0.25, 4), ("a", "b", "x"): (0.0, 4),
    }  # fmt: skip


async def test_visits_and_values_order_the_pool_as_worked_by_hand():
    """Q = 0.5^(1-MC) 0.9^(len/500):  0.75, 100 tokens: 0.8234;  0.5, 10 tokens: 0.7056.  After four selections, three
    of them from the first state: U = c 2/4 and c 2/2, so 0.8859 > 0.8306 at c = 0.125, but 0.9484 < 0.9556 at 0.25."""

    def pool(method):
        search = search_of(Erring(4, 2), method)
        for value, tokens, visits in ((0.75, 100, 3), (0.5, 10, 1)):
            estimate = Estimate(PROBLEM.state, value, visits)
            rollout = Rollout((Step("x", True, "wrong", tokens=tokens),), False)
            search.pool.append(Candidate(estimate, rollout, search._q(estimate, rollout)))
        search.selected = [search.pool[0]] * 4
        return search

    search = pool(OmegaPRM())
    assert [one.q for one in search.pool] == pytest.approx([0.823362, 0.705618], abs=1e-6)
    first, second = search.pool
    assert search._select() is first
    assert (first.estimate.visits, search.pool) == (4, [second])
    search = pool(OmegaPRM(c_puct=0.25))
    assert search._select() is search.selected[-1] is not first
    assert search.selected[-1].estimate.value == 0.5


async def test_words_are_counted_where_tokens_are_not():
    search = search_of(Erring(4, 2), OmegaPRM(alpha=1.0, length=3))
    rollout = Rollout((Step("one two"), Step("three", True, "wrong")), False)
    assert search._q(Estimate(PROBLEM.state, 0.5), rollout) == pytest.approx(0.9)


async def test_what_is_always_or_never_right_is_not_searched(tmp_path):
    class Sure(Erring):
        def _way(self, state, wrong, lost):
            return super()._way(state, self.error > 0, lost)

    for error in (0, 1):
        store = RecordStore(tmp_path / f"{error}.jsonl")
        progress = await label([PROBLEM], OmegaPRM(4), Sure(3, error), GoldChecker(), store)
        assert (list(store), progress.rollouts) == ([], 4)


async def test_no_search_is_begun_that_could_pass_the_limit_on_rollouts():
    for most in range(4, 60):
        search = search_of(Erring(8, 3), OmegaPRM(4, max_rollouts=most))
        await search.run()
        assert search.drawn <= max(most, 4)
        assert not search.pool or search.drawn + 4 * 3 > most, "the next one would have fitted"


async def test_every_label_is_in_the_rows_once(tmp_path):
    store = RecordStore(tmp_path / "rows.jsonl")
    await label([PROBLEM], OmegaPRM(4, searches=6), Erring(8, 3), GoldChecker(), store)
    search = search_of(Erring(8, 3), OmegaPRM(4, searches=6))
    await search.run()
    found = [
        (tuple(row["completions"][: at + 1]), value, n)
        for row in store
        for at, (value, n) in enumerate(zip(row["labels"], row["rollouts"], strict=True))
        if value is not None
    ]
    assert sorted(found) == sorted((path, *known) for path, known in search.labels.items() if path)
    assert {row["source"] for row in store} == {"omega_prm"}


@pytest.mark.parametrize("setting", [{"alpha": 0.0}, {"beta": 1.5}, {"length": 0.0}, {"c_puct": -1.0}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ConfigurationError, match="need alpha and beta in"):
        OmegaPRM(**setting)
