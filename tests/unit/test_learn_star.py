import json

import pytest
from o1_reason_embedded import EmbeddedPolicy, RuleVerifier

from o1_reason import ConfigurationError, Proposals, State, Step, Usage
from o1_reason.chat import Reply
from o1_reason.chat_policy import ChatPolicy
from o1_reason.learn import GoldChecker, Problem, RecordStore, STaR, VerifierChecker, label

SECRET = "1729"


class Solver:
    """A chat model that gets 1729 only when it is told; `prompts` are what it was shown."""

    identity = "solver"

    def __init__(self):
        self.prompts = []

    async def continues(self):
        return True

    def bound(self, messages, sampling, prefix=None):
        return Usage(1)

    async def complete(self, messages, sampling, prefix=None):
        self.prompts.append(messages)
        told = any(SECRET in str(message["content"]) for message in messages)
        easy = messages[-1]["content"] == "easy"
        ends = [SECRET if told else "7" if easy and i % 2 == 0 else "0" for i in range(sampling.n)]
        texts = [f"Reason {i % 4}.\n\nAnswer: {end}" for i, end in enumerate(ends)]
        return [Reply(text, "end", 5) for text in texts], Usage(1, 10, 5 * len(texts))


@pytest.fixture
def store(tmp_path):
    return RecordStore(tmp_path / "rows.jsonl")


async def test_right_samples_are_kept_each_once_and_at_most_so_many(store):
    await label([Problem("easy", "7")], STaR(samples=8, keep=4), ChatPolicy(Solver()), GoldChecker(), store)
    rows = list(store)
    assert [row["steps"] for row in rows] == [["Reason 0.", "Answer: 7"], ["Reason 2.", "Answer: 7"]]
    assert rows[0] == {
        "id": rows[0]["id"], "prompt": "easy\n", "completion": "Reason 0.\nAnswer: 7", "source": "star",
        "steps": ["Reason 0.", "Answer: 7"],
    }  # fmt: skip
    await label([Problem("easy", "7")], STaR(samples=8, keep=1), ChatPolicy(Solver()), GoldChecker(), store)
    assert len(list(store)) == 2, "the same solution again"


async def test_what_was_never_solved_is_rationalised_and_the_hint_is_in_no_row(store):
    solver = Solver()
    context = ({"role": "system", "content": "Be brief."},)
    problem = Problem("hard", SECRET, context)
    await label([problem], STaR(samples=4, keep=2, separator="\n\n"), ChatPolicy(solver), GoldChecker(), store)
    first, hinted = solver.prompts
    assert SECRET not in json.dumps(first)
    assert SECRET in json.dumps(hinted)
    rows = list(store)
    assert [row["source"] for row in rows] == ["star_rationalised"] * 2
    for row in rows:
        assert row["prompt"] == "Be brief.\n\nhard\n\n"
        assert "right answer" not in json.dumps(row)
        assert row["completion"].count(SECRET) == 1, "the model's own answer"


async def test_a_solved_problem_is_shown_no_hint(store):
    solver = Solver()
    await label([Problem("easy", "7")], STaR(), ChatPolicy(solver), GoldChecker(), store)
    assert len(solver.prompts) == 1


async def test_without_rationalisation_what_is_not_solved_is_left_out(store):
    solver = Solver()
    progress = await label([Problem("hard", SECRET)], STaR(rationalise=False), ChatPolicy(solver), GoldChecker(), store)
    assert (list(store), progress.added, len(solver.prompts)) == ([], 1, 1)


async def test_a_policy_that_reads_no_messages_needs_a_hint_of_its_own(store):
    rules = VerifierChecker(RuleVerifier())
    with pytest.raises(ConfigurationError, match=r"EmbeddedPolicy can be shown the answer: give STaR\(hint=...\)"):
        await label([Problem("4 5 6 10", "24")], STaR(), EmbeddedPolicy(), rules, store)
    await label([Problem("1 1 4 6")], STaR(), EmbeddedPolicy(), rules, store)  # there is nothing to show
    assert {row["source"] for row in store} == {"star"}


async def test_a_hint_may_come_from_the_policy_or_from_the_user(store):
    class Own:
        identity = "own"

        async def propose(self, state, n, max_steps=1, *, temperature=None):
            right = "psst" in state.question
            return Proposals(((Step("so", True, "7" if right else "0"),),), Usage(1))

        def hint(self, problem):
            return State(f"psst {problem.gold}: {problem.question}")

    await label([Problem("q", "7")], STaR(), Own(), GoldChecker(), store)
    await label([Problem("r", "7")], STaR(hint=given_hint), Own(), GoldChecker(), store)
    assert [row["prompt"] for row in store] == ["q\n", "r\n"]


def given_hint(problem):
    return State(f"psst: {problem.question}")
