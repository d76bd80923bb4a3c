import asyncio
import time
from dataclasses import replace
from itertools import product

import pytest

from o1_reason import BeamSearch, BestOfN, Budget, ConfigurationError, DepthFirst, Step, Usage, search
from o1_reason.strategies import STRATEGIES
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

CENT = 1 / 128  # dollars a completion token; sums of it are exact
SLACK = 0.25  # seconds, on top of the 100 ms that a deadline may be missed by, for a busy machine


def script(depth=3, branch=3):
    """Every path of `branch` steps a level, `depth` levels, the last of which answers."""
    found = {}
    for level in range(depth):
        for path in product("abcd"[:branch], repeat=level):
            last = level == depth - 1
            found[path] = [f"= {i}" for i in range(branch)] if last else list("abcd"[:branch])
    return found


class Till:
    """What a model really served."""

    served = Usage()
    running = most = 0

    async def serve(self, call):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            return await call
        finally:
            self.running -= 1


class PricedPolicy(ScriptedPolicy, Till):
    async def propose(self, state, n, max_steps=1, *, temperature=None):
        proposals = await self.serve(super().propose(state, n, max_steps, temperature=temperature))
        proposals = replace(
            proposals, usage=replace(proposals.usage, cost_usd=CENT * proposals.usage.completion_tokens)
        )
        self.served += proposals.usage
        return proposals


class PricedVerifier(ScriptedVerifier, Till):
    async def score(self, states):
        scores = await self.serve(super().score(states))
        usage = Usage(1, sum(len(state.steps) for state in states), 0, CENT * len(states))
        self.served += usage
        return [replace(score, usage=usage if i == 0 else Usage()) for i, score in enumerate(scores)]


class BoundPolicy(PricedPolicy):
    def bound(self, state, n, max_steps):
        return Usage(1, 1 + len(state.steps), n * max_steps, CENT * n * max_steps)


class BoundVerifier(PricedVerifier):
    def bound(self, state, n, max_steps):
        return Usage(1, n * (len(state.steps) + max_steps), 0, CENT * n)


def models(bound, **options):
    policy = (BoundPolicy if bound else PricedPolicy)(script(), repeat=True, **options)
    return policy, (BoundVerifier if bound else PricedVerifier)({}, 0.5)


def strategy(name):
    """As deep as the script, so that the bound of a whole trajectory is small."""
    return replace(STRATEGIES[name](), max_depth=3)


every_strategy = pytest.mark.parametrize("name", STRATEGIES)


@every_strategy
@pytest.mark.parametrize("bound", [True, False], ids=["bound", "no bound"])
@pytest.mark.parametrize("samples_per_call", [None, 1, 3])
async def test_calls_and_nodes_never_pass_their_limit(name, bound, samples_per_call):
    for limit in range(12):
        policy, verifier = models(bound, samples_per_call=samples_per_call)
        result = await search("q", policy, verifier, strategy(name), Budget(max_calls=limit))
        assert policy.served.calls + verifier.served.calls <= limit

        policy, verifier = models(bound, samples_per_call=samples_per_call)
        result = await search("q", policy, verifier, strategy(name), Budget(max_nodes=limit))
        assert len(result.tree) - 1 <= limit


@pytest.mark.parametrize("limit", range(8))
async def test_whole_trajectories_are_cut_off_at_the_limit_of_nodes(limit):
    policy = ScriptedPolicy({(): [(Step(f"a{i}"), Step("b"), Step("= 1", True, "1")) for i in range(4)]})
    result = await search("q", policy, None, "best_of_n", Budget(max_nodes=limit))
    assert len(result.tree) - 1 == limit
    assert (result.answer is None) == (limit < 3)


@every_strategy
async def test_tokens_and_dollars_never_pass_their_limit_where_the_bound_is_known(name):
    for limit in range(0, 60, 4):
        policy, verifier = models(bound=True)
        await search("q", policy, verifier, strategy(name), Budget(max_tokens=limit))
        assert policy.served.tokens + verifier.served.tokens <= limit

        policy, verifier = models(bound=True)
        await search("q", policy, verifier, strategy(name), Budget(max_usd=limit * CENT))
        assert ((policy.served + verifier.served).cost_usd or 0) <= limit * CENT


@every_strategy
async def test_without_a_bound_one_call_after_another_passes_a_limit_by_one_call_at_most(name):
    for limit in range(1, 60, 7):
        policy, verifier = models(bound=False)
        dearest = 16 * 3 + 1  # sixteen trajectories of three steps, and the question
        await search("q", policy, verifier, strategy(name), Budget(max_tokens=limit, concurrency=1))
        assert policy.served.tokens + verifier.served.tokens <= limit + 2 * dearest


@every_strategy
async def test_usage_is_what_the_models_served(name):
    policy, verifier = models(bound=True)
    result = await search("q", policy, verifier, strategy(name), Budget(max_calls=9))
    assert result.policy_usage == policy.served
    assert result.verifier_usage == verifier.served
    assert result.usage == policy.served + verifier.served


@every_strategy
@pytest.mark.parametrize("width", [1, 2, 5])
async def test_no_more_calls_are_in_flight_than_allowed(name, width):
    policy, verifier = models(bound=True, samples_per_call=1)
    await search("q", policy, verifier, strategy(name), Budget(concurrency=width))
    assert policy.most <= width
    assert verifier.most <= width


async def test_free_slots_are_used():
    policy, verifier = models(bound=True, samples_per_call=1)
    await search("q", policy, verifier, "beam", Budget(concurrency=5))
    assert policy.most == 5


@pytest.mark.parametrize("limit", ["max_calls", "max_tokens", "max_usd", "max_nodes", "max_seconds"])
@every_strategy
async def test_a_budget_of_nothing_is_a_result_that_says_so(name, limit):
    policy, verifier = models(bound=True, latency=0.01)
    result = await search("q", policy, verifier, strategy(name), Budget(**{limit: 0}))
    assert result.stop == ("deadline" if limit == "max_seconds" else "budget")
    assert (result.answer, result.node, result.text, result.ranking) == (None, None, "", ())
    if limit != "max_seconds":
        assert policy.calls == verifier.calls == []


async def test_a_budget_that_runs_out_gives_the_best_answer_so_far():
    policy = PricedPolicy({(): ["= 1", "= 2", "= 3"]}, samples_per_call=1)
    verifier = PricedVerifier({"= 1": 0.4, "= 2": 0.6, "= 3": 1.0})
    result = await search("q", policy, verifier, BestOfN(n=16), Budget(max_calls=5))
    assert (result.stop, result.answer, result.confidence) == ("budget", "2", 0.6)


async def test_generation_goes_first_when_scoring_would_leave_no_answer_at_all():
    policy, verifier = BoundPolicy({(): ["= 1"]}), BoundVerifier({}, 0.5)
    result = await search("q", policy, verifier, BestOfN(n=1, max_depth=3), Budget(max_calls=1))
    assert (result.answer, result.confidence) == ("1", None)
    assert verifier.served == Usage()


class Sluggish(ScriptedPolicy):
    """Answers the question at once, anything after a first step never."""

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        if state.steps:
            await asyncio.sleep(60)
        return await super().propose(state, n, max_steps, temperature=temperature)


class Asleep:
    async def score(self, states):
        await asyncio.sleep(60)


QUICK_AND_SLOW = {(): ["= 5", "a", "b"]}


def tasks():
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("verifier", [None, ScriptedVerifier({}, 0.5), Asleep()], ids=["none", "quick", "never"])
async def test_a_deadline_is_kept_with_the_best_answer_so_far_and_nothing_left_running(verifier):
    started = time.perf_counter()
    result = await search("q", Sluggish(QUICK_AND_SLOW), verifier, "beam", Budget(max_seconds=0.2))
    assert 0.19 <= time.perf_counter() - started < 0.2 + 0.1 + SLACK
    assert (result.stop, result.answer) == ("deadline", "5")
    assert not tasks()


async def test_a_cancelled_search_leaves_no_task():
    running = asyncio.create_task(search("q", Sluggish(QUICK_AND_SLOW), None, "beam"))
    await asyncio.sleep(0.05)
    assert len(tasks()) > 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not tasks()


async def test_a_search_that_is_done_early_cancels_what_is_in_flight():
    class FirstAnswer(BeamSearch):
        def done(self, tree):
            return bool(tree.terminals)

    class SlowAfterOne(ScriptedPolicy):
        async def propose(self, state, n, max_steps=1, *, temperature=None):
            if self.calls:
                await asyncio.sleep(60)
            return await super().propose(state, n, max_steps, temperature=temperature)

    policy = SlowAfterOne({(): ["= 5"]}, samples_per_call=1)
    started = time.perf_counter()
    result = await search("q", policy, None, FirstAnswer())
    assert (result.stop, result.answer) == ("done", "5")
    assert result.tree.in_flight == 15
    assert time.perf_counter() - started < SLACK
    assert not tasks()


async def test_a_search_that_raises_leaves_no_task():
    class Wrong(Sluggish):
        async def propose(self, state, n, max_steps=1, *, temperature=None):
            if state.steps and state.steps[0].text == "b":
                raise ConfigurationError("this can never work")
            return await super().propose(state, n, max_steps, temperature=temperature)

    with pytest.raises(ConfigurationError, match="can never work"):
        await search("q", Wrong(QUICK_AND_SLOW), None, BeamSearch())
    assert not tasks()


@pytest.mark.parametrize(
    "options",
    [
        {"max_calls": -1},
        {"max_tokens": -1},
        {"max_seconds": float("nan")},
        {"max_seconds": -0.1},
        {"max_usd": -1},
        {"max_nodes": True},
        {"concurrency": 0},
        {"call_seconds": -1},
    ],
)
def test_an_impossible_budget_is_refused_by_name(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Budget(**options)


async def test_a_call_that_fails_counts_against_the_budget():
    script = {(): list("abcd"), **{(c,): RuntimeError("x") for c in "abcd"}}
    policy = ScriptedPolicy(script)
    result = await search("q", policy, None, DepthFirst(threshold=0), Budget(max_calls=2))
    assert len(policy.calls) == 2
    assert (result.usage.calls, result.answer) == (2, None)
