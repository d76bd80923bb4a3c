import asyncio
from importlib.resources import files

import pytest
from o1_reason_embedded import EmbeddedPolicy, RuleVerifier
from o1_reason_embedded.puzzle import parse

from o1_reason import BeamSearch, BestOfN, Budget, ChainOfThought, ConfigurationError, PolicyError, search
from o1_reason.learn import Problem, TraceStore, VerifierChecker, collect, exclude, trace_of, tree_of, tree_values
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

BUDGET = Budget(concurrency=1)
RULES = VerifierChecker(RuleVerifier())


@pytest.fixture
def store(tmp_path):
    return TraceStore(tmp_path / "traces.jsonl")


def policy(**options):
    return ScriptedPolicy({(): ["a", "= 4"], ("a",): ["= 5"]}, repeat=True, **options)


VERIFIER = ScriptedVerifier({("= 4",): 0.9, ("a",): 0.5}, 0.1)


async def test_a_trace_holds_the_search_whole(store):
    problem = Problem("2 + 2?", "4.0", ({"role": "system", "content": "Think."},))
    progress = await collect([problem], policy(), VERIFIER, BeamSearch(2, 2), BUDGET, None, store, seed=3)
    (trace,) = store
    alone = await search(
        problem.question, policy(), VERIFIER, BeamSearch(2, 2), BUDGET, seed=3, context=problem.context
    )
    assert tree_of(trace) == alone.tree
    assert list(trace) == [
        "id", "question", "context", "gold", "policy", "verifier", "strategy", "seed", "stop", "answer", "correct",
        "node", "usage", "tree",
    ]  # fmt: skip
    assert (trace["policy"], trace["verifier"]) == ("scripted-policy", "scripted-verifier")
    assert (trace["answer"], trace["correct"], trace["node"], trace["seed"]) == ("4", True, alone.node, 3)
    assert trace["usage"] == alone.usage.to_data()
    assert (progress.total, progress.added, progress.right, progress.judged) == (1, 1, 1, 1)
    assert progress.usage == alone.usage


async def test_a_search_of_ones_own_is_recorded_under_the_same_id(store):
    arguments = policy(), VERIFIER, BeamSearch(2, 2), BUDGET
    result = await search("2 + 2?", *arguments)
    with store:
        await store.add(trace_of(result, *arguments, gold="4", correct=True))
    progress = await collect([Problem("2 + 2?", "4")], *arguments, None, store)
    assert (progress.known, progress.added) == (1, 0)


async def test_a_search_that_went_on_from_steps_is_another_search(store):
    arguments = policy(), VERIFIER, BeamSearch(2, 2), BUDGET
    behind = trace_of(await search("2 + 2?", *arguments, steps=["a"]), *arguments)
    assert behind["id"] != trace_of(await search("2 + 2?", *arguments), *arguments)["id"]
    with store:
        await store.add(behind)
    (row,) = tree_values(next(iter(store)), min_visits=1)
    assert (row["completions"], row["labels"]) == (["a", "= 5"], [None, pytest.approx(0.1)])


async def test_all_that_decides_a_search_is_in_its_id(store):
    given = {"problems": [Problem("q", "4")], "policy": policy(), "verifier": VERIFIER, "strategy": BeamSearch(2, 2),
             "budget": BUDGET, "checker": None, "store": store}  # fmt: skip
    await collect(**given)
    for change in (
        {"problems": [Problem("q?", "4")]},
        {"problems": [Problem("q", "4", ({"role": "user", "content": "before"},))]},
        {"policy": policy(identity="another")},
        {"verifier": ScriptedVerifier({}, identity="another")},
        {"strategy": BeamSearch(2, 3)},
        {"budget": Budget(concurrency=1, max_calls=100)},
        {"seed": 1},
    ):
        assert (await collect(**{**given, **change})).added == 1, change
    assert (await collect(**{**given, "problems": [Problem("q", "5")]})).known == 1, "what is right decides nothing"


async def test_more_samples_later_add_what_is_missing(store):
    problems = [Problem("a", "4"), Problem("b", "4")]
    arguments = policy(), None, ChainOfThought(), BUDGET, None, store
    first = await collect(problems, *arguments, samples=2)
    more = await collect(problems, *arguments, samples=3)
    assert (first.added, more.known, more.added, more.total) == (4, 4, 2, 6)
    assert sorted((trace["question"], trace["seed"]) for trace in store) == [(q, s) for q in "ab" for s in range(3)]


async def test_a_problem_that_fails_stops_no_other_and_is_tried_again_by_the_next_run(store):
    class Moody(ScriptedPolicy):
        bad = True

        async def propose(self, state, n, max_steps=1, *, temperature=None):
            if self.bad and state.question == "b":
                raise PolicyError("not today")
            return await super().propose(state, n, max_steps, temperature=temperature)

    moody = Moody({(): ["= 4"]}, repeat=True)
    problems = [Problem(q, "4") for q in "abc"]
    told = []
    progress = await collect(problems, moody, None, ChainOfThought(), BUDGET, None, store, on_progress=told.append)
    (failure,) = progress.failures
    assert (progress.added, failure.question, failure.seed) == (2, "b", 0)
    assert "not today" in failure.error
    assert [state.added + len(state.failures) for state in told] == [1, 2, 3]
    assert told[1].seconds_left == pytest.approx(told[1].seconds / 2)
    moody.bad = False
    assert (await collect(problems, moody, None, ChainOfThought(), BUDGET, None, store)).added == 1


async def test_what_can_never_work_is_raised_soon(store):
    class Broken(ScriptedPolicy):
        async def propose(self, state, n, max_steps=1, *, temperature=None):
            self.calls.append(((), n, max_steps))
            raise PolicyError("no such model")

    broken = Broken({})
    problems = (Problem(f"{i}", "4") for i in range(10**9))
    with pytest.raises(PolicyError, match="no such model"):
        await collect(problems, broken, None, ChainOfThought(), BUDGET, None, store)
    assert len(broken.calls) < 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "no-such"}, "no adapter 'no-such'"),
        ({"policy": policy(identity="")}, "give ScriptedPolicy an attribute identity"),
        ({"strategy": "no-such"}, "unknown strategy"),
        ({"samples": 0}, "samples and concurrency must be at least 1"),
    ],
)
async def test_what_cannot_work_is_raised_before_any_search(change, message, store):
    given = {"problems": [Problem("q", "4")], "policy": policy(), "verifier": None, "strategy": ChainOfThought(),
             "budget": BUDGET, "checker": None, "store": store}  # fmt: skip
    with pytest.raises(ConfigurationError, match=message):
        await collect(**{**given, **change})


async def test_a_strategy_must_tell_its_settings_to_be_kept(store):
    class Plain(ChainOfThought):
        __repr__ = object.__repr__

    with pytest.raises(ConfigurationError, match="make it a dataclass"):
        await collect([Problem("q")], policy(), None, Plain(), BUDGET, None, store)


async def test_cancelling_stops_all_searches_and_keeps_what_is_done(store):
    slow = policy(latency=0.01)
    problems = [Problem(f"{i}", "4") for i in range(1000)]
    task = asyncio.create_task(collect(problems, slow, None, ChainOfThought(), BUDGET, None, store))
    while not store.path.exists() or len(list(store)) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    calls = len(slow.calls)
    await asyncio.sleep(0.05)
    assert len(slow.calls) == calls, "a search is still running"
    kept = [trace["id"] for trace in store]
    assert 3 <= len(kept) < 1000
    with TraceStore(store.path) as again:  # nothing holds the file any more
        assert all(id in again for id in kept)


async def test_a_ledger_pays_for_a_half_done_search_once(tmp_path, store):
    arguments = VERIFIER, BestOfN(4), BUDGET, None
    first = policy()
    await collect([Problem("q", "4")], first, *arguments, store, ledger=tmp_path / "ledger.db")
    again = policy()
    other = TraceStore(tmp_path / "other.jsonl")
    await collect([Problem("q", "4")], again, *arguments, other, ledger=tmp_path / "ledger.db")
    assert first.calls
    assert not again.calls
    assert list(other) == list(store)


async def test_no_test_puzzle_is_in_what_is_collected(store):
    """However it is put: in another order, as a sentence, with another target."""
    ranked = (files("o1_reason_embedded") / "puzzles24.txt").read_text().splitlines()
    held_out = ranked[800:1000]  # validation and test
    numbers = {tuple(parse(question).numbers) for question in held_out}
    asked = [*ranked[798:803], *ranked[950:953], *ranked[1000:1002]]
    asked += [f"Make 36 from {', '.join(reversed(question.split()))}" for question in held_out[::40]]
    problems = exclude(map(Problem, asked), held_out, key=lambda question: parse(question).numbers)
    progress = await collect(problems, EmbeddedPolicy(), None, ChainOfThought(), BUDGET, RULES, store)
    assert progress.added == 4
    assert not {tuple(parse(trace["question"]).numbers) for trace in store} & numbers


async def test_the_rules_say_which_of_the_embedded_answers_are_right(store):
    progress = await collect(
        [Problem("4 5 6 10"), Problem("1 1 1 1")], "embedded", "embedded", BeamSearch(2, 2), Budget(), RULES, store
    )
    assert (progress.judged, progress.right) == (2, 1)
    assert {trace["question"]: trace["correct"] for trace in store} == {"4 5 6 10": True, "1 1 1 1": False}
