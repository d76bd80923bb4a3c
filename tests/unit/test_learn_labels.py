import asyncio
from dataclasses import dataclass, field

import pytest
from o1_reason_embedded import EmbeddedPolicy, RuleVerifier

from o1_reason import BeamSearch, Budget, ConfigurationError, PolicyError, Proposals, State, Step, Usage
from o1_reason.learn import (
    METHODS,
    GoldChecker,
    MathShepherd,
    MiPS,
    OmegaPRM,
    Problem,
    RecordStore,
    Solved,
    STaR,
    TraceStore,
    VerifierChecker,
    collect,
    label,
    solved,
)
from o1_reason.learn.rollouts import Roller
from o1_reason.learn.rows import from_prefixes
from o1_reason.learn.traces import finished_states, tree_of

PROBLEM = Problem("q", "yes")


@dataclass
class Rates:
    """From a state whose text is in `rates`, so many of every ten samples end right, after one more step; else none.

    `seeds` records the seeds it was called with, by state.
    """

    rates: dict[str, int]
    identity: str = "rates"
    samples_per_call: int | None = None
    calls: list[tuple[str, int, int]] = field(default_factory=list)
    seeds: dict[str, set[int]] = field(default_factory=dict)
    most: int = 0
    running: int = 0

    async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
        before = sum(asked for text, asked, _ in self.calls if text == state.text)
        self.calls.append((state.text, n, max_steps))
        self.seeds.setdefault(state.text, set()).add(seed)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        right = [(before + i) % 10 < self.rates.get(state.text, 0) for i in range(n)]
        ends = [(Step("so", True, "yes" if good else "no", tokens=2),) for good in right]
        return Proposals(tuple(ends), Usage(1, 3, 2 * n))


def solution(*texts, answer="yes"):
    *steps, last = texts
    return State("q", (*map(Step, steps), Step(last, True, answer)))


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "rows.jsonl")


async def test_hard_labels_say_whether_some_rollout_is_right_and_soft_ones_which_share(store, tmp_path):
    given = [Solved(PROBLEM, (solution("a", "b", "c", "yes"), solution("a", "x", "no", answer="no")))]
    rates = Rates({"a": 3, "a\nb": 10, "a\nb\nc": 0})
    await label(given, MathShepherd(rollouts=10), rates, GoldChecker(), store)
    first, second = store
    assert first == {
        "id": first["id"], "prompt": "q", "completions": ["a", "b", "c", "yes"], "labels": [1.0, 1.0, 0.0, 1.0],
        "rollouts": [10, 10, 10, 1], "source": "math_shepherd",
    }  # fmt: skip
    assert (second["labels"], second["rollouts"]) == ([1.0, 0.0, 0.0], [10, 10, 1])
    soft = RecordStore(tmp_path / "soft.jsonl")
    await label(given, MathShepherd(rollouts=10, soft=True), rates, GoldChecker(), soft)
    assert [row["labels"] for row in soft] == [[0.3, 1.0, 0.0, 1.0], [0.3, 0.0, 0.0]]
    assert not {row["id"] for row in store} & {row["id"] for row in soft}


async def test_the_last_step_is_labelled_by_its_own_answer_and_costs_nothing(store):
    rates = Rates({})
    progress = await label([Solved(PROBLEM, (solution("yes"),))], "math_shepherd", rates, GoldChecker(), store)
    (row,) = store
    assert (row["labels"], row["rollouts"], rates.calls, progress.rollouts) == ([1.0], [1], [], 0)


async def test_a_beginning_that_solutions_share_is_rolled_out_once(store):
    rates = Rates({"a": 5, "a\nb": 2})
    given = [Solved(PROBLEM, (solution("a", "b", "yes"), solution("a", "b", "no"), solution("a", "c", "yes")))]
    progress = await label(given, MathShepherd(rollouts=10, soft=True), rates, GoldChecker(), store)
    assert sorted(text for text, _, _ in rates.calls) == ["a", "a\nb", "a\nc"]
    assert progress.rollouts == 30
    assert [row["labels"] for row in store] == [[0.5, 0.2, 1.0], [0.5, 0.2, 1.0], [0.5, 0.0, 1.0]]


async def test_rollouts_of_a_state_are_one_call_and_are_counted(store):
    rates = Rates({"a": 5})
    given = [Solved(PROBLEM, (solution("a", "b", "yes"),))]
    progress = await label(given, MathShepherd(rollouts=8), rates, GoldChecker(), store, max_steps=9)
    assert sorted(rates.calls) == [("a", 8, 9), ("a\nb", 8, 9)]
    assert (progress.rollouts, progress.usage) == (16, Usage(2, 6, 32))


async def test_calls_are_split_where_a_policy_takes_fewer_samples_and_every_part_has_a_seed_of_its_own(store):
    rates = Rates({"a": 5}, samples_per_call=3)
    await label([Solved(PROBLEM, (solution("a", "yes"),))], MathShepherd(rollouts=8), rates, GoldChecker(), store)
    assert sorted(n for _, n, _ in rates.calls) == [2, 3, 3]
    assert len(rates.seeds["a"]) == 3


async def test_no_more_calls_run_at_once_than_are_allowed(store):
    rates = Rates({"a": 5})
    given = [Solved(PROBLEM, (solution("a", "b", "c", "d", "e", "f", "yes"),))]
    await label(given, MathShepherd(), rates, GoldChecker(), store, calls=2)
    assert rates.most == 2


async def test_mips_labels_its_own_samples_with_shares(store):
    rates = Rates({"": 4})
    await label([PROBLEM], MiPS(solutions=10, rollouts=4), rates, GoldChecker(), store)
    assert sorted((row["completions"][0], *row["labels"]) for row in store) == [("so", 1.0)], "equal ones are one"
    with pytest.raises(ConfigurationError, match="MiPS labels what its own policy samples"):
        await label([Solved(PROBLEM, (solution("a"),))], "mips", rates, GoldChecker(), store)


async def test_an_attempt_without_an_end_is_not_right():
    class Lost(Rates):
        async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
            await super().propose(state, n, max_steps)
            ways = [(Step("yes", True, "yes"),), (Step("on"), Step("and on"))]
            return Proposals(tuple(ways[: n - 1] if n > 1 else [(Step("on"),)]), Usage(1))

    lost = Lost({})
    rollouts = await Roller(lost, GoldChecker(), max_steps=4).roll(PROBLEM, PROBLEM.state, 3)
    assert [len(rollout.steps) for rollout in rollouts.found] == [1, 4]
    assert (rollouts.right, rollouts.share) == (1, pytest.approx(1 / 3))


async def test_a_resumed_labelling_repeats_nothing(store, tmp_path):
    problems = [Problem(f"q{i}", "yes") for i in range(6)]
    first = await label(problems[:4], "mips", Rates({"": 5}), GoldChecker(), store)
    again = Rates({"": 5})
    whole = await label(problems, "mips", again, GoldChecker(), store)
    assert (first.added, whole.known, whole.added) == (4, 4, 2)
    assert len(again.calls) == 2
    rows = list(store)
    idle = Rates({"": 5})
    await label(problems, "mips", idle, GoldChecker(), store)
    assert (idle.calls, list(store)) == ([], rows)


async def test_all_that_decides_labels_decides_their_ids(store):
    given = {"items": [PROBLEM], "method": MiPS(2, 2), "policy": Rates({"": 5}), "checker": GoldChecker(),
             "store": store}  # fmt: skip
    await label(**given)
    for change in ({"method": MiPS(2, 3)}, {"method": MathShepherd(2, 2)}, {"policy": Rates({"": 5}, "other")},
                   {"seed": 1}, {"temperature": 0.5}, {"items": [Problem("q", "no")]}):  # fmt: skip
        assert (await label(**{**given, **change})).added == 1, change
    rows = [row["id"] for row in store]
    assert len(rows) == len(set(rows)) == 7


async def test_a_ledger_answers_what_was_drawn(store, tmp_path):
    problems = [Problem(f"q{i}", "yes") for i in range(3)]
    first, again = Rates({"": 5}), Rates({"": 5})
    progress = await label(problems, "mips", first, GoldChecker(), store, ledger=tmp_path / "ledger.db")
    other = RecordStore(tmp_path / "other.jsonl")
    replayed = await label(problems, "mips", again, GoldChecker(), other, ledger=tmp_path / "ledger.db")
    assert first.calls
    assert not again.calls
    assert sorted(map(str, other)) == sorted(map(str, store))
    assert (replayed.usage, replayed.rollouts) == (progress.usage, progress.rollouts)


async def test_a_problem_that_fails_stops_no_other(store):
    class Moody(Rates):
        async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
            if state.question == "q1":
                raise PolicyError("not today")
            return await super().propose(state, n, max_steps)

    problems = [Problem(f"q{i}", "yes") for i in range(3)]
    progress = await label(problems, "mips", Moody({"": 5}), GoldChecker(), store)
    assert ([failure.question for failure in progress.failures], progress.added) == (["q1"], 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "no-such"}, "there are: math_shepherd, mips, omega_prm, star"),
        ({"items": [Problem("q")]}, "give the problem a gold answer"),
        ({"temperature": 0.0}, "rollouts have to differ"),
        ({"policy": Rates({}, "")}, "give Rates an attribute identity"),
    ],
)
async def test_what_cannot_work_says_what_to_do(change, message, store):
    given = {"items": [PROBLEM], "method": "mips", "policy": Rates({}), "checker": GoldChecker(), "store": store}
    with pytest.raises(ConfigurationError, match=message):
        await label(**{**given, **change})


@pytest.mark.parametrize(
    "make", [lambda: MathShepherd(rollouts=0), lambda: MiPS(solutions=0), lambda: STaR(keep=0), lambda: OmegaPRM(0)]
)
def test_counts_below_one_are_refused(make):
    with pytest.raises(ConfigurationError, match="must be an integer >= 1; got 0"):
        make()


async def test_paths_of_traces_can_be_labelled(tmp_path, store):
    traces, rules = TraceStore(tmp_path / "traces.jsonl"), VerifierChecker(RuleVerifier())
    await collect([Problem("4 5 6 10")], "embedded", "embedded", BeamSearch(2, 2), Budget(), rules, traces)
    (trace,) = traces
    ends = [[step.text for step in state.steps] for _, state in finished_states(tree_of(trace))]
    await label(solved(traces), MathShepherd(rollouts=2), "embedded", rules, store)
    assert [row["completions"] for row in store] == ends


async def test_every_method_labels_the_embedded_policy_the_same_way_twice(tmp_path):
    rules, problems = VerifierChecker(RuleVerifier()), [Problem(q) for q in ("4 5 6 10", "1 2 4 7", "3 3 8 8")]
    for name, kind in METHODS.items():
        method = kind(rationalise=False) if kind is STaR else kind()
        found = []
        for run in "ab":
            made = RecordStore(tmp_path / f"{name}.{run}")
            await label(problems, method, EmbeddedPolicy(), rules, made)
            found.append(sorted(row["id"] for row in made))
            for row in made:
                known = [one for one in row.get("labels", []) if one is not None]
                assert all(0 <= one <= 1 for one in known)
                assert row.get("completion") or known
        assert found[0] == found[1]
        assert found[0], name


def test_labels_of_a_tree_stand_once_and_shared_steps_are_null_after_their_first_row():
    known = {(): (0.5, 8), ("a",): (0.5, 8), ("a", "b", "c"): (0.0, 8), ("a", "d"): (1.0, 8), ("e", "f"): (None, None)}
    rows = list(from_prefixes("q", known, "omega_prm", "x"))
    assert [(row["completions"], row["labels"], row["rollouts"]) for row in rows] == [
        (["a", "b", "c"], [0.5, None, 0.0], [8, None, 8]),
        (["a", "d"], [None, 1.0], [None, 8]),
    ]
