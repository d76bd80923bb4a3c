import asyncio
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier, RuleVerifier

from o1_reason import BeamSearch, BestOfN, ConfigurationError, Score, State, Step, Tree, Usage, VerifierError, search
from o1_reason.aggregate import Ranking, path_score, step_aware_scores
from o1_reason.protocols import check_scores
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier, check_verifier
from o1_reason.verifiers import Cascade, Gate, Mean, Product

AB = State("q", (Step("a"), Step("b")))
DONE = State("q", (Step("a"), Step("= 7", True, "7")))
STATES = [AB, DONE, State("q")]


class Part:
    """Scores by the text of the steps: one reward for each, or `whole` ones; remembers what it was asked."""

    def __init__(self, rewards, whole=False, name="part"):
        self.rewards, self.whole, self.identity = rewards, whole, name
        self.asked = []

    def bound(self, state, n, max_steps):
        return Usage(1, 10 * n)

    async def score(self, states):
        self.asked.append(list(states))
        await asyncio.sleep(0)
        scores = []
        for i, state in enumerate(states):
            each = tuple(self.rewards[step.text] for step in state.steps) or (0.5,)
            usage = Usage(1 if i == 0 else 0, len(each))
            scores.append(Score(each[-1:] if self.whole else each, f"{self.identity} says so", usage))
        return scores


def steps(a, b, name="steps"):
    return Part({"a": a, "b": b, "= 7": b}, name=name)


def whole(reward, name="whole"):
    return Part({"a": reward, "b": reward, "= 7": reward}, whole=True, name=name)


async def rewards(verifier, *states):
    return [pytest.approx(score.rewards) for score in check_scores(await verifier.score(states), states)]


# Numbers.


async def test_a_mean_is_taken_step_by_step_and_a_whole_score_counts_at_the_end():
    # weights 3 and 1: a .9 alone; b (3 * .5 + .1) / 4 = .4
    assert await rewards(Mean(steps(0.9, 0.5), whole(0.1), weights=(3, 1)), AB) == [(0.9, 0.4)]
    # equal weights: a (.9 + .3) / 2 = .6; b (.5 + .7 + .3) / 3 = .5
    assert await rewards(Mean(steps(0.9, 0.5), steps(0.3, 0.7), whole(0.3)), AB) == [(0.6, 0.5)]
    assert await rewards(Mean(whole(0.2), whole(0.6)), AB) == [(0.4,)]
    assert await rewards(Mean(steps(0.2, 0.6)), AB) == [(0.2, 0.6)]


async def test_a_product_is_taken_step_by_step_and_a_whole_score_counts_at_the_end():
    assert await rewards(Product(steps(0.9, 0.5), whole(0.1)), AB) == [(0.9, 0.05)]
    assert await rewards(Product(steps(0.5, 0.8), steps(0.5, 0.5)), AB) == [(0.25, 0.4)]
    assert await rewards(Product(whole(0.5), whole(0.0)), AB) == [(0.0,)]


async def test_a_gate_multiplies_the_end_of_finished_paths_alone():
    assert await rewards(Gate(steps(0.9, 0.5), whole(0.1)), AB, DONE) == [(0.9, 0.5), (0.9, 0.05)]
    outcome = whole(0.1)
    await Gate(steps(0.9, 0.5), outcome).score([AB, State("q")])
    assert outcome.asked == []


async def test_a_cascade_lifts_what_survives_above_what_does_not():
    # t = .4.  .3 fails: .4 * .9, .4 * .3;  .4 survives: .4 + .6 e
    assert await rewards(Cascade(steps(0.9, 0.3), whole(0.5), 0.4), AB) == [(0.36, 0.12)]
    assert await rewards(Cascade(steps(0.9, 0.4), whole(0.5), 0.4), AB) == [(0.7,)]
    assert await rewards(Cascade(whole(0.4), steps(0.0, 1.0), 0.4), AB) == [(0.4, 1.0)]


async def test_only_what_survives_is_paid_for():
    cheap = Part({"a": 0.9, "b": 0.1, "= 7": 0.5}, whole=True)
    expensive = whole(1.0)
    scores = await Cascade(cheap, expensive, 0.5).score([AB, DONE, AB])
    assert cheap.asked == [[AB, DONE, AB]]
    assert expensive.asked == [[DONE]]
    assert [score.rewards for score in scores] == [(0.05,), (1.0,), (0.05,)]
    await Cascade(cheap, expensive, 0.5).score([AB, AB])
    assert expensive.asked == [[DONE]]  # nothing to ask, no call


async def test_a_state_without_steps_has_one_reward():
    for verifier in (Mean(steps(0.9, 0.5), whole(0.1)), Product(steps(0.9, 0.5)), Cascade(steps(1, 1), whole(1), 0.4)):
        assert [len(score.rewards) for score in await verifier.score([State("q")])] == [1]


# Laws.

COMBINATIONS = {
    "gate": lambda a, b: Gate(a, b),
    "mean": lambda a, b: Mean(a, b, weights=(0.1, 0.7)),
    "product": lambda a, b: Product(a, b),
    "cascade": lambda a, b: Cascade(a, b, 0.5),
}
each = pytest.mark.parametrize("combine", COMBINATIONS.values(), ids=COMBINATIONS)
unit = st.floats(0, 1)


@st.composite
def scored(draw):
    """A state of up to four steps, and two verifiers of any kind for it."""
    texts = [str(i) for i in range(draw(st.integers(0, 4)))]
    parts = [Part({text: draw(unit) for text in texts}, whole=draw(st.booleans())) for _ in range(2)]
    ends = draw(st.booleans())
    return State("q", tuple(Step(text, ends and text == texts[-1]) for text in texts)), parts


@each
@given(case=scored())
def test_rewards_are_in_the_unit_interval_one_per_step_or_one(combine, case):
    state, (a, b) = case
    (score,) = check_scores(asyncio.run(combine(a, b).score([state])), [state])
    if not (isinstance(combine(a, b), Cascade | Gate) or (a.whole and b.whole)):
        assert len(score.rewards) == max(1, len(state.steps))


@given(case=scored())
def test_a_mean_lies_between_and_a_product_below_what_is_combined(case):
    state, (a, b) = case
    one, other = (asyncio.run(part.score([state]))[0].rewards[-1] for part in (a, b))
    mean = asyncio.run(Mean(a, b, weights=(1, 7)).score([state]))[0].rewards[-1]
    product = asyncio.run(Product(a, b).score([state]))[0].rewards[-1]
    assert min(one, other) - 1e-12 <= mean <= max(one, other) + 1e-12
    assert product <= min(one, other)


def aggregated(score, name):
    tree = Tree("q")
    at = 0
    for i, reward in enumerate(score.rewards):
        node, _ = tree.add(at, Step(str(i)))
        node.reward, at = reward, node.id
    return path_score(tree, at, name)


@given(
    t=st.floats(1e-9, 1 - 1e-9),
    cheap=st.tuples(unit, unit, unit, unit),
    expensive=st.tuples(unit, unit),
    shapes=st.tuples(st.booleans(), st.booleans()),
    name=st.sampled_from(["last", "min", "mean"]),
)
def test_what_survives_a_cascade_ranks_above_what_does_not_however_paths_are_scored(t, cheap, expensive, shapes, name):
    one, other = State("q", (Step("a"), Step("b"))), State("q", (Step("c"), Step("d")))
    table = dict(zip("abcd", cheap, strict=True))
    dear = Part(dict(zip("abcd", expensive * 2, strict=True)), whole=shapes[1])
    cascade = Cascade(Part(table, whole=shapes[0]), dear, t)
    first, second = asyncio.run(cascade.score([one, other]))
    if (table["b"] >= t) != (table["d"] >= t):
        above, below = (first, second) if table["b"] >= t else (second, first)
        assert aggregated(above, name) >= t > aggregated(below, name)


@given(t=st.floats(0.01, 0.99), scores=st.lists(st.tuples(unit, unit), min_size=2, max_size=6))
def test_within_each_side_of_a_cascade_its_verifiers_order_stands(t, scores):
    states = [State("q", (Step(str(i)),)) for i in range(len(scores))]
    cheap = Part({str(i): c for i, (c, _) in enumerate(scores)})
    dear = Part({str(i): e for i, (_, e) in enumerate(scores)})
    found = [score.rewards[-1] for score in asyncio.run(Cascade(cheap, dear, t).score(states))]
    for (c, e), r in zip(scores, found, strict=True):
        for (d, f), s in zip(scores, found, strict=True):
            if (c >= t) == (d >= t):
                assert r <= s or (e > f if c >= t else c > d)


@each
async def test_a_combination_keeps_the_laws_of_verifiers(combine):
    await check_verifier(combine(steps(0.9, 0.5), whole(0.3)), STATES)
    await check_verifier(combine(whole(0.3), steps(0.9, 0.5)), STATES)


@each
async def test_no_states_are_no_calls(combine):
    a, b = whole(0.5), steps(0.9, 0.5)
    assert list(await combine(a, b).score([])) == []
    assert a.asked == b.asked == []


@each
async def test_every_call_is_counted_once(combine):
    a, b = whole(0.9), steps(0.9, 0.5)
    scores = await combine(a, b).score([AB, DONE, AB])
    served = [part.asked for part in (a, b)]
    calls = sum(len(asked) for asked in served)
    tokens = sum(max(1, len(state.steps)) for asked in served for batch in asked for state in batch)
    assert sum((score.usage for score in scores), Usage()) == Usage(calls, tokens)


@each
async def test_combinations_can_be_combined(combine):
    nested = combine(Mean(steps(0.9, 0.5), whole(0.5)), Product(whole(0.5), Cascade(whole(0.9), steps(0.9, 0.5), 0.5)))
    await check_verifier(nested, STATES)
    assert nested.bound(AB, 2, 1) == Usage(5, 100)


async def test_critiques_are_passed_on():
    a, b = whole(0.4, name="a"), whole(0.6, name="b")
    assert [score.critique for score in await Mean(a, b).score([AB])] == ["a says so\nb says so"]
    assert [score.critique for score in await Cascade(a, b, 0.5).score([AB])] == ["a says so"]
    assert [score.critique for score in await Cascade(b, a, 0.5).score([AB])] == ["a says so"]
    assert [score.critique for score in await Gate(a, b).score([AB, DONE])] == ["a says so", "b says so"]


# Failure, cancellation, concurrency.


class Failing:
    identity = "failing"

    def __init__(self, error):
        self.error = error

    async def score(self, states):
        raise self.error


class Hanging:
    identity = "hanging"
    begun = ended = 0

    async def score(self, states):
        self.begun += 1
        try:
            await asyncio.sleep(600)
        finally:
            self.ended += 1


@each
@pytest.mark.parametrize("error", [VerifierError("no"), ConfigurationError("never"), ZeroDivisionError("by zero")])
async def test_an_error_of_a_part_is_the_combinations(combine, error):
    for verifier in (combine(Failing(error), whole(1.0)), combine(whole(1.0), Failing(error))):
        with pytest.raises(type(error)) as raised:
            await verifier.score([DONE])
        assert raised.value is error


@pytest.mark.parametrize("combine", [Mean, Product, Gate])
async def test_what_runs_beside_a_part_that_fails_is_cancelled(combine):
    hanging = Hanging()
    with pytest.raises(VerifierError):
        await combine(hanging, Failing(VerifierError("no"))).score([DONE])
    assert (hanging.begun, hanging.ended) == (1, 1)


@each
async def test_cancelling_a_combination_cancels_its_parts(combine):
    a, b = Hanging(), Hanging()
    task = asyncio.create_task(combine(a, b).score([DONE]))
    await asyncio.sleep(0.05)
    assert a.begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (a.ended, b.ended) == (a.begun, b.begun)


@pytest.mark.parametrize("combine", [Mean, Product, Gate])
async def test_parts_that_do_not_need_each_other_run_at_once(combine):
    class Meeting:
        identity = "meeting"

        async def score(self, states):
            await barrier.wait()
            return [Score((0.5,)) for _ in states]

    barrier = asyncio.Barrier(2)
    async with asyncio.timeout(10):
        await combine(Meeting(), Meeting()).score([DONE])


@each
@pytest.mark.parametrize(
    "broken", [[], [Score((0.5, 0.5, 0.5))], [Score((1.5,))]], ids=["none", "too many", "too much"]
)
async def test_a_part_that_breaks_its_contract_is_found_out(combine, broken):
    class Broken:
        identity = "broken"

        async def score(self, states):
            return broken

    for verifier in (combine(Broken(), whole(1.0)), combine(whole(1.0), Broken())):
        with pytest.raises(VerifierError):
            await verifier.score([DONE])


# Identity, bound, configuration.


def test_identities_tell_combinations_apart():
    a, b = whole(1, name="a"), whole(1, name="b")
    all_different = [
        Gate(a, b), Gate(b, a), Mean(a, b), Mean(b, a), Mean(a, b, weights=(1, 2)), Mean(a), Product(a, b),
        Product(b, a), Cascade(a, b, 0.5), Cascade(b, a, 0.5), Cascade(a, b, 0.25), Mean(Mean(a, b)), Mean(Mean(a), b),
    ]  # fmt: skip
    assert len({verifier.identity for verifier in all_different}) == len(all_different)
    assert Mean(a, b).identity == Mean(a, b, weights=(1.0, 1.0)).identity


@each
def test_a_part_without_an_identity_is_named(combine):
    with pytest.raises(ConfigurationError, match="the verifier object an attribute identity"):
        _ = combine(whole(1.0), object()).identity


@each
def test_a_bound_is_the_sum_of_the_bounds_or_none(combine):
    assert combine(whole(1.0), steps(1.0, 1.0)).bound(AB, 3, 1) == Usage(2, 60)
    assert combine(whole(1.0), Failing(None)).bound is None


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Mean(), "at least one"),
        (lambda: Product(), "at least one"),
        (lambda: Mean(whole(1), weights=(1, 2)), "one weight per verifier"),
        (lambda: Mean(whole(1), weights=(0,)), "positive"),
        (lambda: Mean(whole(1), weights=(math.nan,)), "positive"),
        (lambda: Mean(whole(1), weights=(math.inf,)), "positive"),
        (lambda: Cascade(whole(1), whole(1), 0.0), "threshold"),
        (lambda: Cascade(whole(1), whole(1), 1.0), "threshold"),
        (lambda: Cascade(whole(1), whole(1), math.nan), "threshold"),
    ],
)
def test_impossible_combinations_are_refused(make, why):
    with pytest.raises(ConfigurationError, match=why):
        make()


# Real searches.


class Counted:
    """A verifier, and how many states it was asked about."""

    def __init__(self, verifier):
        self.verifier, self.identity, self.bound = verifier, verifier.identity, verifier.bound
        self.states = 0

    async def score(self, states):
        self.states += len(states)
        return await self.verifier.score(states)


@pytest.mark.parametrize("combine", [Mean, Product, Gate])
async def test_a_search_with_the_rules_beside_the_reward_model_is_right_where_the_model_alone_is_wrong(combine):
    async def solved(verifier):
        result = await search("2 5 10 13", EmbeddedPolicy(), verifier, BestOfN(n=8), seed=1)
        (verdict,) = await RuleVerifier().score([result.tree.state(result.node)])
        return verdict.rewards == (1.0,)

    assert not await solved(EmbeddedVerifier())
    assert await solved(combine(EmbeddedVerifier(), RuleVerifier()))


async def test_a_cascade_saves_calls_of_the_expensive_verifier_and_finds_the_answer():
    rules, model = Counted(RuleVerifier()), Counted(EmbeddedVerifier())
    result = await search("4 5 6 10", EmbeddedPolicy(), Cascade(rules, model, 0.5), BeamSearch(), seed=1)
    assert result.answer is not None
    assert result.confidence is not None
    assert result.confidence >= 0.5
    refuted = [node for node in result.tree.nodes if node.critique is not None]
    assert model.states == rules.states - len(refuted) < rules.states
    assert max(node.reward for node in refuted) < 0.5
    assert result.verifier_usage.prompt_tokens > 0


async def test_a_cascade_is_ledgered_and_bounded_like_any_verifier(tmp_path):
    async def run():
        parts = Counted(EmbeddedVerifier()), Counted(RuleVerifier())
        verifier = Cascade(*parts, 0.1)
        result = await search("4 5 6 10", EmbeddedPolicy(), verifier, "beam", ledger=tmp_path / "calls.sqlite", seed=1)
        return result, sum(part.states for part in parts)

    (first, asked), (again, asked_again) = await run(), await run()
    assert asked > 0
    assert asked_again == 0
    assert (again.answer, again.verifier_usage) == (first.answer, first.verifier_usage)


# Step-aware voting (DIVERSE).


def grown(*paths):
    """A tree of (steps, answer, score, samples); the score stands at the end."""
    tree = Tree("q")
    for texts, answer, score, samples in paths:
        for _ in range(samples):
            at = 0
            for text in texts:
                at = tree.add(at, Step(text))[0].id
            node, _ = tree.add(at, Step(f"so {answer}", True, answer))
            node.reward = score
    return tree


def test_a_step_is_worth_the_mean_of_the_paths_that_share_all_up_to_it():
    tree = grown((["a", "b"], "7", 0.8, 1), (["a", "c"], "8", 0.4, 1), (["b", "a"], "7", 0.6, 1))
    p1, p2, p3 = tree.terminals
    # p1: {a} in all three (.8 + .4 + .6) / 3 = .6;  {a b} in p1, p3 .7;  {a b 7} .7      .6 * .7 * .7 = .294
    # p2: {a} .6;  {a c} .4;  {a c 8} .4                                                   .6 * .4 * .4 = .096
    # p3: {b} in p1, p3 .7;  {a b} .7;  {a b 7} .7                                         .7 * .7 * .7 = .343
    scores = {p1: 0.8, p2: 0.4, p3: 0.6}
    assert step_aware_scores(tree, scores) == pytest.approx({p1: 0.294, p2: 0.096, p3: 0.343})
    ranking = Ranking(tree, vote="step_aware")
    assert [answer for answer, _ in ranking.answers] == ["7", "8"]
    assert [worth for _, worth in ranking.answers] == pytest.approx([0.637 / 0.733, 0.096 / 0.733])
    assert ranking.node == p1


def test_every_sample_counts_in_the_mean_and_in_the_vote():
    tree = grown((["a"], "7", 0.8, 1), (["a"], "8", 0.2, 2))
    p1, p2 = tree.terminals
    # {a}: (.8 + 2 * .2) / 3 = .4;  7: .4 * .8 = .32;  8: .4 * .2 = .08, twice .16
    assert step_aware_scores(tree, {p1: 0.8, p2: 0.2}) == pytest.approx({p1: 0.32, p2: 0.08})
    assert [worth for _, worth in Ranking(tree, vote="step_aware").answers] == pytest.approx([0.32 / 0.48, 0.16 / 0.48])


def test_a_step_said_twice_has_to_occur_twice():
    tree = grown((["a", "a"], "1", 0.2, 1), (["a"], "2", 1.0, 1))
    p1, p2 = tree.terminals
    # {a}: .6;  {a a} and {a a 1}: .2          .6 * .2 * .2 = .024;     {a 2}: 1        .6 * 1 = .6
    assert step_aware_scores(tree, {p1: 0.2, p2: 1.0}) == pytest.approx({p1: 0.024, p2: 0.6})


def test_steps_are_equal_but_for_case_and_blanks_and_ends_by_their_answers():
    tree = grown((["Add  1"], "1/2", 0.2, 1), (["add 1 "], "0.5", 0.6, 1))
    # both steps are in both paths: (.2 + .6) / 2 = .4
    scores = step_aware_scores(tree, {i: tree.nodes[i].reward for i in tree.terminals})
    assert list(scores.values()) == pytest.approx([0.16, 0.16])
    assert [worth for _, worth in Ranking(tree, vote="step_aware").answers] == [1.0]


def test_a_beginning_that_leads_nowhere_costs_its_paths_the_vote():
    # weighted: 8 has .6, 7 has .55.  step-aware: 8 begins with x, (.6 + 3 * .1) / 4 = .225; .225 * .6 = .135,
    # 7 has .55 * .55 = .3025
    tree = grown(
        (["x"], "8", 0.6, 1), (["x"], "1", 0.1, 1), (["x"], "2", 0.1, 1), (["x"], "3", 0.1, 1), (["y"], "7", 0.55, 1)
    )
    assert Ranking(tree, vote="weighted").answers[0][0] == "8"
    assert Ranking(tree, vote="step_aware").answers[0][0] == "7"


def test_paths_without_a_score_say_nothing_and_without_any_score_heads_are_counted():
    tree = grown((["a"], "7", 0.8, 1), (["a"], "8", None, 5))
    assert Ranking(tree, vote="step_aware").answers == (("7", 1.0), ("8", 0.0))
    assert Ranking(grown((["a"], "7", None, 1), (["a"], "8", None, 3)), vote="step_aware").answers == (
        ("8", 0.75),
        ("7", 0.25),
    )


@given(st.lists(st.tuples(st.sampled_from("123"), unit, st.integers(1, 3)), min_size=1, max_size=6))
def test_answers_without_steps_before_them_vote_as_by_their_scores(found):
    tree = grown(*(([], answer, score, samples) for answer, score, samples in found))
    weighted, aware = (dict(Ranking(tree, vote=vote).answers) for vote in ("weighted", "step_aware"))
    assert aware == pytest.approx(weighted)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abc"), max_size=4), st.sampled_from("12"), unit, st.integers(1, 2)),
        min_size=1,
        max_size=6,
    )
)
def test_step_aware_scores_are_in_the_unit_interval_and_agree_with_the_definition(found):
    tree = grown(*found)
    scores = {i: tree.nodes[i].reward for i in tree.terminals}
    steps = {i: [*(s.text for s in tree.steps(i)[:-1]), f"={tree.nodes[i].key}"] for i in scores}
    for i, value in step_aware_scores(tree, scores).items():
        expected = 1.0
        for j in range(1, len(steps[i]) + 1):
            sharing = [k for k in scores if Counter(steps[i][:j]) <= Counter(steps[k])]
            mass = sum(tree.nodes[k].samples for k in sharing)
            expected *= sum(scores[k] * tree.nodes[k].samples for k in sharing) / mass
        assert value == pytest.approx(expected)
        assert 0 <= value <= 1 + 1e-12


async def test_best_of_n_takes_the_step_aware_vote():
    script = {(): ["x", "x", "x", "y"], ("x",): ["= 8", "= 1", "= 2"], ("y",): ["= 7"]}
    verifier = ScriptedVerifier({"= 8": 0.6, "= 1": 0.1, "= 2": 0.1, "= 7": 0.55})
    for vote, answer in (("weighted", "8"), ("step_aware", "7")):
        result = await search("q", ScriptedPolicy(script), verifier, BestOfN(n=4, vote=vote))
        assert result.answer == answer


async def test_a_step_aware_vote_over_real_paths_is_right():
    strategy = BestOfN(n=16, aggregate="mean", vote="step_aware")
    result = await search("4 5 6 10", EmbeddedPolicy(), EmbeddedVerifier(), strategy, seed=1)
    (verdict,) = await RuleVerifier().score([result.tree.state(result.node)])
    assert verdict.rewards == (1.0,)
    assert result.confidence is not None
    assert 0 < result.confidence <= 1
    assert math.fsum(worth for _, worth in result.ranking) == pytest.approx(1)
