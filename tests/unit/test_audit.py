import asyncio

import pytest
from readers import BAD, FREE, GOOD, Reader, questions, solutions

from o1_reason import Budget, ConfigurationError, Score, Usage, VerifierError
from o1_reason.audit import audit_verifier
from o1_reason.errors import LedgerError, UnjudgedError
from o1_reason.ledger import SQLiteLedger

# The verdict.


async def test_a_verifier_that_beats_the_vote_is_worth_using():
    audit = await audit_verifier(questions(10, *GOOD), Reader(), budget=FREE)
    assert audit.verdict.worth is True
    assert audit.verdict.text.startswith(
        "Worth using: best-of-4 gets 100 % of 10 questions right, a majority vote 0 % (+100 points, 95 % CI +100 to "
    )
    assert audit.verdict.setting == 'BestOfN(n=4, aggregate="last")'
    assert audit.trial.p == 2 / 2**10


async def test_a_verifier_that_a_vote_beats_is_not():
    rows = [("1 0.9", False, "b"), ("1 0.2", True, "a"), ("1 0.3", True, "a")]
    audit = await audit_verifier(questions(10, *rows), Reader(whole=True), budget=FREE, best_of=3)
    assert (audit.verdict.worth, audit.verdict.setting) == (False, None)
    assert audit.verdict.text == (
        "Do not use it, a majority vote is better: best-of-3 gets 0 % of 10 questions right, a majority vote 100 % "
        "(-100 points, 95 % CI -100 to -100, p = 0.002)."
    )


async def test_a_verifier_whose_favourite_a_vote_beats_is_not_either_if_it_does_not_help_the_vote():
    audit = await audit_verifier(questions(10, *BAD), Reader(), budget=FREE)
    assert audit.verdict.worth is False
    assert audit.verdict.text == (
        "Do not use it, a majority vote is better: best-of-4 gets 0 % of 10 questions right, a majority vote 100 % "
        "(-100 points, 95 % CI -100 to -100, p = 0.002). Nor is it shown to help the vote: a vote of 4 weighted by its "
        "scores gets 100 % of 10 questions right, a majority vote 100 % (+0 points, 95 % CI +0 to +0, p = 1)."
    )


async def test_where_nothing_is_shown_the_vote_is_advised():
    audit = await audit_verifier(questions(2, *GOOD), Reader(), budget=FREE)
    assert audit.verdict.worth is None
    assert audit.verdict.text.startswith("No difference is shown: best-of-4 gets 100 % of 2 questions right")
    assert audit.verdict.text.endswith("Take the vote, which needs no verifier, or audit more questions.")


async def test_the_weighted_vote_is_advised_where_it_is_better_and_the_favourite_warned_of():
    rows = [("1 0.9", False, "b"), ("1 0.7", True, "a"), ("1 0.7", True, "a"), *[("1 0.1", False, "c")] * 3]
    audit = await audit_verifier(questions(10, *rows), Reader(), budget=FREE, best_of=6)
    assert audit.verdict.setting == 'BestOfN(n=6, aggregate="last", vote="weighted")'
    last = audit.trial.rows[-1]
    assert (last.vote.value, last.best.value, last.weighted.value) == (0, 0, 1)


async def test_a_vote_that_its_scores_help_is_no_reason_to_take_its_favourite():
    helped = [("1 0.9", False, "b"), ("1 0.7", True, "a"), ("1 0.7", True, "a"), *[("1 0.1", False, "c")] * 3]
    harmed = [("1 0.9", False, "b"), ("1 0.7", True, "a"), ("1 0.7", True, "a"), *[("1 0.1", True, "a")] * 3]
    rows = [(f"{kind}{i}", *row) for i in range(10) for kind in (helped, harmed) for row in kind]
    rows = [(f"{i // 6}", *row[1:]) for i, row in enumerate(rows)]
    audit = await audit_verifier(solutions(*rows), Reader(), budget=FREE, best_of=6)
    assert audit.verdict.worth is True
    assert "Not without the vote: best-of-6 gets 0 % of 20 questions right, a majority vote 50 %" in audit.verdict.text


async def test_where_no_question_is_mixed_there_is_nothing_to_choose():
    audit = await audit_verifier(questions(9, ("1 0.3", True, "a"), ("1 0.4", True, "b")), Reader(), budget=FREE)
    assert (audit.verdict.worth, audit.trial.mixed) == (None, 0)
    assert audit.verdict.text.startswith("Nothing to choose")


async def test_without_answers_it_is_compared_with_one_at_random():
    rows = [("1 0.9", True), ("1 0.2", False)]
    audit = await audit_verifier(questions(10, *rows), Reader(), budget=FREE)
    assert "one at random 50 %" in audit.verdict.text
    assert (audit.trial.voted, audit.trial.rows[-1].weighted) == (False, None)


async def test_without_several_solutions_the_auc_has_to_do():
    good = solutions(*((i, f"1 {0.5 + i / 100 if i % 2 else i / 100}", bool(i % 2), "a") for i in range(40)))
    audit = await audit_verifier(good, Reader(), budget=FREE)
    assert (audit.trial, audit.verdict.worth) == (None, None)
    assert audit.verdict.text.startswith("It tells right solutions from wrong ones, with an AUC of 1.00")
    chance = solutions(*((i, f"1 0.{i // 2 + 10}", bool(i % 2), "a") for i in range(40)))
    audit = await audit_verifier(chance, Reader(), budget=FREE)
    assert audit.verdict.worth is False
    assert "no better than chance" in audit.verdict.text


async def test_with_step_labels_alone_a_solution_is_right_if_no_step_is_wrong():
    rows = [("a", "1 0.9", None, None, [True, True]), ("b", "1 0.2", None, None, [True, False])]
    audit = await audit_verifier(solutions(*rows), Reader(), budget=FREE)
    assert (audit.right, audit.chosen.auc.value) == (0.5, 1.0)


async def test_without_labels_there_is_nothing_to_compare():
    audit = await audit_verifier(solutions(("a", "1 0.9", None)), Reader(), budget=FREE)
    assert audit.verdict.text.startswith("Nothing to compare")
    assert (audit.right, audit.steps, audit.first_error, audit.trial) == (None, None, None, None)


# What it rests on.


async def test_the_aggregation_that_tells_best_is_found():
    rows = [("0.8 0.5", True, "a"), ("0.1 0.9", False, "b"), ("0.2 0.8", False, "b")]
    audit = await audit_verifier(questions(10, *rows), Reader(), budget=FREE, best_of=3)
    assert audit.verdict.setting == 'BestOfN(n=3, aggregate="min")'
    worths = {(vote, aggregate): worth for vote, aggregate, worth in audit.trial.in_sample}
    assert (worths["none", "last"], worths["none", "min"], worths["weighted", "last"]) == (0, 1, 0)


async def test_a_choice_is_measured_on_questions_that_had_no_part_in_it():
    """Of two questions one is for "last", the other for "min" and more strongly so: each gets the other's choice."""
    last = [("0.1 0.9", True, "a"), ("0.8 0.8", False, "b")]
    least = [("0.9 0.8", True, "a"), ("0.1 0.9", False, "b")]
    rows = [("x", *row) for row in last] + [("y", *row) for row in least]
    audit = await audit_verifier(solutions(*rows), Reader(), budget=FREE, best_of=2)
    assert max(worth for *_, worth in audit.trial.in_sample) == 0.5
    assert audit.trial.chosen.value == audit.trial.rows[-1].best.value == 0


async def test_a_threshold_is_measured_on_questions_that_had_no_part_in_it():
    rows = [
        ("x", "1 0.6", False, "a", [True, False]), ("x", "1 0.8", True, "b", [True, True]),
        ("y", "1 0.2", False, "a", [True, False]), ("y", "1 0.4", True, "b", [True, True]),
    ]  # fmt: skip
    audit = await audit_verifier(solutions(*rows), Reader(), budget=FREE)
    # x is judged below 0.3: its error is missed; y below 0.7: both of its are suspected.
    assert (audit.first_error.error_accuracy, audit.first_error.correct_accuracy) == (0.5, 0.5)
    given = await audit_verifier(solutions(*rows), Reader(), budget=FREE, threshold=0.7)
    assert (given.first_error.error_accuracy, given.first_error.correct_accuracy) == (1.0, 0.5)
    assert (audit.threshold_chosen, given.threshold_chosen) == (True, False)


async def test_steps_are_judged_where_they_are_labelled():
    rows = [("x", "0.9 0.2 0.6", False, "a", [True, False, None]), ("y", "0.7 0.1", True, "b", [True, True])]
    audit = await audit_verifier(solutions(*rows), Reader(), budget=FREE)
    assert (audit.steps.n, audit.steps.wrong, audit.steps.auc.value) == (4, 1, 2 / 3)
    assert audit.steps.calibration.brier == pytest.approx((0.1**2 + 0.2**2 + 0.3**2 + 0.9**2) / 4)


async def test_one_reward_per_solution_leaves_no_choice_of_aggregation():
    audit = await audit_verifier(questions(10, *GOOD), Reader(whole=True), budget=FREE)
    assert (audit.process, len(audit.aggregations), audit.first_error, audit.steps) == (False, 1, None, None)
    assert audit.verdict.worth is True


async def test_questions_with_fewer_solutions_are_left_out_and_counted():
    rows = [*questions(4, *GOOD), *solutions(("few", "1 0.5", True, "a"), ("few", "1 0.4", False, "b"))]
    audit = await audit_verifier(rows, Reader(), budget=FREE)
    assert ([row.n for row in audit.trial.rows], audit.trial.questions, audit.trial.fewer) == ([1, 2, 4], 4, 1)
    audit = await audit_verifier(rows, Reader(), budget=FREE, best_of=2)
    assert ([row.n for row in audit.trial.rows], audit.trial.questions, audit.trial.fewer) == ([1, 2], 5, 0)


async def test_the_same_seed_gives_the_same_audit():
    rows = questions(12, ("1 0.5", True, "a"), ("1 0.6", False, "b"), ("1 0.7", True, "c"), ("1 0.4", False, "b"))

    async def data(seed):
        found = (await audit_verifier(rows, Reader(), budget=FREE, seed=seed)).to_data()
        return {**found, "cost": None}

    assert await data(1) == await data(1) != await data(2)


# The run.


async def test_failures_are_counted_by_kind_and_never_scored():
    rows = [("1 0.9", True, "a"), ("down", False, "b"), ("broken", False, "b"), ("1 ?", False, "b")]
    audit = await audit_verifier(questions(10, *rows), Reader(), budget=FREE)
    assert (audit.solutions, audit.failed) == (40, 30)
    assert {kind: count for kind, count, _ in audit.failures} == {
        "endpoint failed": 10, "ZeroDivisionError": 10, "reply could not be read": 10,
    }  # fmt: skip
    assert audit.chosen.calibration.n == 10
    # Of four, the one with a score is chosen; alone, one with none is no choice.
    assert [row.best.value for row in audit.trial.rows] == pytest.approx([0.25, 0.5, 1.0])
    assert audit.cost.usage == Usage(10 + 10 * 2 + 10 + 10, 10 * 10 + 10 * 5, 20, pytest.approx(0.1))


async def test_of_a_batch_only_those_without_a_score_fail():
    verifier = Reader()
    rows = [("1 0.9", True, "a"), ("1 ?", False, "b"), ("1 0.2", False, "b"), ("1 0.1", False, "c")]
    audit = await audit_verifier(questions(3, *rows), verifier, budget=FREE, batch=3)
    assert [len(call) for call in verifier.calls] == [3, 1] * 3
    assert (audit.failed, audit.failures) == (3, (("reply could not be read", 3, "cannot read '?'"),))


async def test_replies_that_a_critic_could_not_read_are_counted():
    verifier = Reader()
    verifier.parse_failures = 5
    read = verifier.read

    def counted(states):
        verifier.parse_failures += 1
        return read(states)

    verifier.read = counted
    assert (await audit_verifier(questions(2, *GOOD), verifier, budget=FREE)).unreadable == 8


async def test_if_every_call_fails_the_first_failure_is_told():
    with pytest.raises(VerifierError, match=r"no call of the verifier succeeded; the first: the endpoint is down"):
        await audit_verifier(questions(2, ("down", True, "a")), Reader(), budget=FREE)


async def test_a_verifier_that_only_fails_is_given_up_early():
    verifier = Reader()
    with pytest.raises(VerifierError, match="the first 20 calls of the verifier failed; the last: the endp"):
        await audit_verifier(questions(200, ("down", True, "a")), verifier, budget=FREE)
    assert len(verifier.calls) < 30


async def test_what_can_never_work_ends_the_audit_at_once():
    verifier = Reader()
    with pytest.raises(ConfigurationError, match="the key is wrong"):
        await audit_verifier(questions(50, ("key", True, "a")), verifier, budget=FREE)
    assert len(verifier.calls) < 10


async def test_a_score_outside_the_contract_is_a_failure():
    audit = await audit_verifier(questions(2, ("1 0.9", True, "a"), ("1 1.5", False, "b")), Reader(), budget=FREE)
    assert [(kind, count) for kind, count, _ in audit.failures] == [("no valid score", 2)]


async def test_calls_run_together_as_far_as_allowed():
    verifier = Reader()
    await audit_verifier(questions(10, *GOOD), verifier, budget=Budget(concurrency=3))
    assert verifier.most == 3
    assert [len(call) for call in verifier.calls] == [1] * 40


@pytest.mark.parametrize("budget", [Budget(max_calls=7), Budget(max_tokens=90), Budget(max_usd=0.075)])
async def test_a_budget_holds_and_what_it_leaves_out_is_counted(budget):
    verifier = Reader()
    verifier.bound = lambda state, n, max_steps: Usage(1, 10, 2, 0.01)
    audit = await audit_verifier(questions(10, *GOOD), verifier, budget=budget)
    assert len(verifier.calls) == audit.solutions == audit.cost.usage.calls == 7
    assert (audit.left_out, audit.stop) == (33, "budget")


async def test_once_the_budget_is_short_nothing_cheaper_is_asked_either():
    verifier = Reader()
    verifier.bound = lambda state, n, max_steps: Usage(1, 10 * (len(state.steps) + 1))
    rows = [("a", "1 1", True), ("b", "1 1 1 1 1", True), ("c", "1", True)]
    audit = await audit_verifier(solutions(*rows), verifier, budget=Budget(max_tokens=35, concurrency=1))
    assert (len(verifier.calls), audit.left_out) == (1, 2), "or else short solutions would be over-represented"


async def test_the_order_in_which_calls_finish_changes_nothing():
    class Late(Reader):
        async def score(self, states):
            for _ in range(sum(map(ord, states[0].text)) % 7):
                await asyncio.sleep(0)
            return await super().score(states)

    rows = [*GOOD[:2], ("1 0.9", False, "a"), ("1 0.2", True, "d")]
    prompt = await audit_verifier(questions(10, *rows), Reader(), budget=Budget(concurrency=1))
    late = await audit_verifier(questions(10, *rows), Late(), budget=Budget(concurrency=9))
    assert (late.trial, late.aggregations, late.verdict) == (prompt.trial, prompt.aggregations, prompt.verdict)


async def test_a_ledger_that_cannot_be_written_loses_no_score(tmp_path):
    class Full(SQLiteLedger):
        async def put(self, key, record):
            raise LedgerError("the disk is full")

    audit = await audit_verifier(questions(10, *GOOD), Reader(), budget=FREE, ledger=Full(tmp_path / "calls.sqlite"))
    assert (audit.failed, audit.verdict.worth, audit.warning) == (0, True, "the disk is full")


async def test_a_deadline_ends_the_run_with_what_there_is():
    class Slow(Reader):
        async def score(self, states):
            await asyncio.sleep(0 if len(self.calls) < 8 else 60)
            return await super().score(states)

    budget = Budget(concurrency=2, max_seconds=0.3)
    audit = await audit_verifier(questions(10, *GOOD), Slow(), budget=budget)
    assert (audit.stop, audit.solutions + audit.left_out) == ("deadline", 40)
    assert audit.solutions >= 8
    assert audit.cost.usage.calls == audit.solutions + 2, "cancelled calls are counted"


async def test_with_no_time_at_all_nothing_is_judged():
    verifier = Reader()
    audit = await audit_verifier(questions(1, *GOOD), verifier, budget=Budget(max_seconds=0))
    assert (verifier.calls, audit.solutions, audit.left_out) == ([], 0, 4)
    assert audit.verdict.text == "Nothing was judged (deadline): there is nothing to say."


async def test_cancelling_an_audit_cancels_its_calls():
    class Hanging(Reader):
        full = asyncio.Event()

        async def score(self, states):
            self.flying += 1
            if self.flying == 4:
                self.full.set()
            try:
                await asyncio.sleep(60)
            finally:
                self.flying -= 1

    verifier = Hanging()
    task = asyncio.create_task(audit_verifier(questions(10, *GOOD), verifier, budget=FREE))
    await verifier.full.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert verifier.flying == 0


@pytest.mark.parametrize("batch", [1, 4])
async def test_a_ledger_answers_what_was_paid_for(tmp_path, batch):
    first, second = Reader(), Reader()
    rows, book = questions(10, *GOOD), tmp_path / "calls.sqlite"
    paid = await audit_verifier(rows, first, budget=FREE, ledger=book, batch=batch)
    again = await audit_verifier(rows, second, budget=Budget(max_calls=0), ledger=book, batch=batch)
    assert (len(first.calls), second.calls) == (40 // batch, [])
    assert (again.cost.paid, again.cost.usage, again.cost.replayed) == (Usage(), paid.cost.usage, 40)
    assert (again.verdict, again.aggregations, again.trial) == (paid.verdict, paid.aggregations, paid.trial)


async def test_an_audit_that_ran_out_of_budget_goes_on_where_it_was(tmp_path):
    verifier, book = Reader(), tmp_path / "calls.sqlite"
    left = []
    for _ in range(3):
        audit = await audit_verifier(questions(5, *GOOD), verifier, budget=Budget(max_calls=8), ledger=book)
        left.append(audit.left_out)
    assert (left, len(verifier.calls)) == ([12, 4, 0], 20)
    assert audit.stop == "done"


async def test_scores_given_in_company_are_kept_apart_in_the_ledger(tmp_path):
    verifier, book = Reader(), tmp_path / "calls.sqlite"
    await audit_verifier(questions(1, *GOOD), verifier, budget=FREE, ledger=book, batch=4)
    await audit_verifier(questions(1, *GOOD), verifier, budget=FREE, ledger=book, batch=2)
    assert [len(call) for call in verifier.calls] == [4, 2, 2]


async def test_a_ledger_needs_an_identity():
    class Nameless:
        async def score(self, states):
            return []

    with pytest.raises(ConfigurationError, match="identity"):
        await audit_verifier(questions(1, *GOOD), Nameless(), ledger="unused.sqlite")


async def test_a_verifier_of_states_judges_every_prefix_if_asked():
    rows = [("a", "0.9 0.4 0.6", False, "a", [True, False, None]), ("b", "0.8", True, "b", [True])]
    verifier = Reader(whole=True)
    audit = await audit_verifier(solutions(*rows), verifier, budget=Budget(concurrency=1), prefixes=True)
    assert verifier.calls == [["0.9\n0.4\n0.6"], ["0.9", "0.9\n0.4"], ["0.8"]]
    assert (audit.process, audit.steps.n, audit.cost.usage.calls) == (True, 3, 3)
    process = Reader()
    await audit_verifier(solutions(*rows), process, budget=FREE, prefixes=True)
    assert len(process.calls) == 2, "rewards of steps are not asked for twice"


async def test_a_prefix_without_a_score_leaves_the_solution_without():
    rows = [("a", "? 0.6", False, "a"), ("b", "0.8 0.7", True, "b")]
    audit = await audit_verifier(solutions(*rows), Half(whole=True), budget=FREE, prefixes=True)
    assert (audit.solutions, audit.failed) == (2, 1)


class Half(Reader):
    """Cannot judge a state that ends with "?"."""

    def read(self, states):
        scores = [None if s.steps[-1].text == "?" else Score((float(s.steps[-1].text),)) for s in states]
        if None in scores:
            raise UnjudgedError("cannot read '?'", scores)
        return scores


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"best_of": 1}, "best_of must be an integer >= 2, for there is no choice among fewer; got 1"),
        ({"threshold": 1.5}, r"threshold must be a number in \[0, 1\]; got 1.5"),
        ({"batch": 0}, "batch must be an integer >= 1"),
    ],
)
async def test_settings_that_cannot_work_are_refused_before_any_call(settings, why):
    verifier = Reader()
    with pytest.raises(ConfigurationError, match=why):
        await audit_verifier(questions(2, *GOOD), verifier, **settings)
    assert verifier.calls == []


async def test_best_of_more_than_there_are_is_refused():
    with pytest.raises(ConfigurationError, match=r"at least 5 solutions .*; the most that a question has is 4"):
        await audit_verifier(questions(2, *GOOD), Reader(), best_of=5)


async def test_nothing_to_judge_and_nobody_to_judge_are_refused():
    with pytest.raises(ConfigurationError, match="no solutions"):
        await audit_verifier([], Reader())
    with pytest.raises(ConfigurationError, match="no verifier"):
        await audit_verifier(questions(1, *GOOD), None)
