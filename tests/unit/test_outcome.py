import builtins
import sys

import pytest

from o1_reason import BeamSearch, ConfigurationError, Gate, State, Step, Usage, VerifierError, search
from o1_reason.answers import mathematics
from o1_reason.answers.mathematics import Worker
from o1_reason.ledger import identity_of
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier, check_verifier
from o1_reason.verifiers import ExactMatch, JSONSchema, MathEquivalence, NumericTolerance, Regex

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ALL = [
    MathEquivalence("\\frac{1}{2}"),
    ExactMatch("1/2"),
    NumericTolerance(0.5),
    Regex(r"\d/\d"),
    JSONSchema(POINT),
]
each = pytest.mark.parametrize("verifier", ALL, ids=lambda verifier: type(verifier).__name__)


def ended(answer):
    return State("?", (Step("thinking"), Step("done", terminal=True, answer=answer)))


async def reward(verifier, answer):
    (score,) = await verifier.score([ended(answer)])
    (found,) = score.rewards
    assert score.usage == Usage()
    assert bool(score.critique) == (found < 1)
    return found


@pytest.fixture
def own_worker(monkeypatch):
    own = Worker(seconds=2.0)
    monkeypatch.setattr(mathematics, "worker", lambda: own)
    yield own
    own.close()
    own.executor.shutdown()


@pytest.mark.parametrize("answer", ["\\frac{1}{2}", "0.5", "50%", "\\sqrt{1/4}", "\\sin 30^\\circ"])
async def test_math_equivalence_passes_every_way_to_write_the_answer(answer):
    assert await reward(MathEquivalence("1/2"), answer) == 1.0


@pytest.mark.parametrize("answer", ["2", "", "0.4999999", "a half", "2^{3^{4^{5^6}}}"])
async def test_math_equivalence_fails_another_answer(answer):
    assert await reward(MathEquivalence("1/2"), answer) == 0.0


async def test_each_of_several_right_answers_passes():
    assert [await reward(MathEquivalence(["x = 1", "x = 2"]), answer) for answer in "123"] == [1, 1, 0]
    assert [await reward(ExactMatch(("a", "b")), answer) for answer in "abc"] == [1, 1, 0]
    assert [await reward(NumericTolerance([1, "2"]), answer) for answer in "123"] == [1, 1, 0]


async def test_exact_match_is_character_by_character():
    assert [await reward(ExactMatch("Paris"), answer) for answer in ("Paris", " Paris\n", "paris", "Paris.")] == [
        1,
        1,
        0,
        0,
    ]
    assert await reward(ExactMatch("Paris", ignore_case=True), "PARIS") == 1.0


@pytest.mark.parametrize(
    ("gold", "rel", "abs_", "answer", "passes"),
    [
        (1000, 0.01, 0, "1010", 1),
        (1000, 0.01, 0, "1010.001", 0),
        (1000, 0.01, 0, "990", 1),
        (0, 0.5, 0, "0.001", 0),
        (0, 0, 0.001, "-0.001", 1),
        (3, 0, 0, "3.0", 1),
        (3, 0, 0, "3.0000000001", 0),
        (0.1, 0, 0, "1/10", 1),
        ("1/3", 1e-6, 0, "0.3333333", 1),
        (-2, 1e-6, 0, "-2", 1),
        (-2, 1e-6, 0, "2", 0),
        (1.4142, 1e-4, 0, "\\sqrt{2}", 1),
        (1200, 0, 0, "$1,200", 1),
        (0.5, 0, 0, "50%", 1),
        (1, 1, 0, "blue", 0),
        (1, 1, 0, "1 + i", 0),
        (1, 1, 0, "\\infty", 0),
        (1, 1, 0, "2x", 0),
    ],
)
async def test_numeric_tolerance_is_relative_to_the_expected_number_or_absolute(gold, rel, abs_, answer, passes):
    assert await reward(NumericTolerance(gold, rel, abs_), answer) == passes


async def test_a_regular_expression_matches_the_whole_answer_unless_told_otherwise():
    answers = ["12", " 12 ", "12 cm", "x"]
    assert [await reward(Regex(r"\d+"), answer) for answer in answers] == [1, 1, 0, 0]
    assert [await reward(Regex(r"\d+", full=False), answer) for answer in answers] == [1, 1, 1, 0]
    assert await reward(Regex("(?i)yes|no"), "NO") == 1.0


async def test_a_pattern_that_backtracks_for_ever_is_stopped(own_worker):
    verifier = Regex("(a+)+b")
    (score,) = await verifier.score([ended("a" * 40)])
    assert score.rewards == (0.0,)
    assert "too long" in score.critique
    assert await reward(verifier, "aab") == 1.0


@pytest.mark.parametrize(
    ("answer", "critique"),
    [
        ('{"x": 1}', None),
        ('```json\n{"x": 1, "y": []}\n```', None),
        ('{"x": "1"}', "'1' is not of type 'integer'"),
        ("{}", "'x' is a required property"),
        ("x", "not JSON"),
        ("[" * 5000, "took too long"),
    ],
)
async def test_json_is_checked_against_its_schema(answer, critique):
    (score,) = await JSONSchema(POINT).score([ended(answer)])
    assert score.rewards == (0.0 if critique else 1.0,)
    assert score.critique == critique or critique in score.critique


@each
async def test_an_unfinished_state_ranks_between_right_and_wrong(verifier):
    scores = await verifier.score([State("?"), State("?", (Step("1/2"),)), ended(None), ended("no such thing")])
    assert [score.rewards for score in scores] == [(0.5,), (0.5,), (0.0,), (0.0,)]
    assert [score.critique for score in scores][:3] == ["not finished", "not finished", "no answer"]


@each
async def test_it_is_a_lawful_verifier_that_costs_nothing_and_can_be_ledgered(verifier):
    await check_verifier(verifier, [State("?"), ended("1/2"), ended("2"), ended(None)])
    assert verifier.bound(State("?"), 4, 1) == Usage()
    assert identity_of(verifier, "verifier") == verifier.identity


def test_verifiers_that_judge_differently_have_different_identities():
    verifiers = [
        MathEquivalence("1"), MathEquivalence("2"), MathEquivalence(["1", "2"]), ExactMatch("1"), ExactMatch("1", True),
        NumericTolerance(1), NumericTolerance(1, 0.1), NumericTolerance(1, abs=0.1), Regex("1"), Regex("1", full=False),
        JSONSchema({}), JSONSchema(POINT),
    ]  # fmt: skip
    assert len({verifier.identity for verifier in verifiers}) == len(verifiers)


async def test_the_critique_does_not_give_the_right_answer_away():
    for verifier in (MathEquivalence("1234"), ExactMatch("1234"), NumericTolerance(1234), Regex("1234")):
        (score,) = await verifier.score([ended("7")])
        assert "1234" not in score.critique


@pytest.mark.parametrize(
    "make",
    [
        lambda: MathEquivalence(""),
        lambda: MathEquivalence([]),
        lambda: MathEquivalence([1]),
        lambda: ExactMatch([]),
        lambda: NumericTolerance("blue"),
        lambda: NumericTolerance([]),
        lambda: NumericTolerance(float("nan")),
        lambda: NumericTolerance(1, rel=-1),
        lambda: NumericTolerance(1, abs=float("inf")),
        lambda: Regex("("),
        lambda: JSONSchema({"type": "no such type"}),
        lambda: JSONSchema({"x": object()}),
    ],
)
def test_what_can_never_work_is_refused(make):
    with pytest.raises(ConfigurationError):
        make()


def test_without_jsonschema_it_says_how_to_get_it(monkeypatch):
    def no_jsonschema(name, *arguments):
        if name.startswith("jsonschema"):
            raise ImportError(name)
        return real(name, *arguments)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_jsonschema)
    with pytest.raises(ConfigurationError, match=r"pip install 'o1-reason\[schema\]'"):
        JSONSchema({})


async def test_a_check_that_cannot_even_begin_is_an_error_not_a_wrong_answer(own_worker, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.warns(RuntimeWarning), pytest.raises(VerifierError, match="does not start"):
        await Regex("a").score([ended("a")])
    assert await reward(MathEquivalence("1/2"), "0.5") == 1.0


async def test_alone_it_leads_a_search_to_the_right_answer_and_gated_it_overrules():
    script = {(): ["think", "= 7"], ("think",): ["= \\sqrt{4}", "= 3"]}
    result = await search("?", ScriptedPolicy(script), MathEquivalence("2"), BeamSearch(2, 2))
    assert (result.answer, result.confidence) == ("\\sqrt{4}", 1.0)
    likes = ScriptedVerifier({"= 7": 0.9, "think": 0.8, "= \\sqrt{4}": 0.3, "= 3": 0.7})
    result = await search("?", ScriptedPolicy(script), Gate(likes, MathEquivalence("2")), BeamSearch(2, 2))
    assert (result.answer, result.confidence) == ("\\sqrt{4}", 0.3)
