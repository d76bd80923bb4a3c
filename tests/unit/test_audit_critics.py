"""Critics under audit: self-critique that is worse than a vote is found out, and unreadable replies are no scores."""

import json

import pytest
from judges import ScriptedChat, blocks, sum_holds
from o1_reason_openai import Endpoint, OpenAIChat
from openai_server import Server
from readers import FREE, solutions

from o1_reason import Budget
from o1_reason.audit import audit_verifier
from o1_reason.verifiers import Critic
from o1_reason.verifiers.critics.vote import VoteCritic

SUMS = [("1 + 2 = 3", True, "3"), ("1 + 2 = 4", False, "4"), ("1 + 2 = 5", False, "5"), ("1 + 2 = 6", False, "6")]
EASY = [("1 + 2 = 3", True, "3"), ("2 + 1 = 3", True, "3"), ("1 + 2 = 5", False, "5")]


def sums(n, rows):
    return solutions(*((group, *row) for group in range(n) for row in rows), separator="; ")


def says(judge):
    """A critic's script: 9 of 10 points if `judge(text)`, else 1; "hm" where it is None."""

    def script(messages, sampling):
        held = judge(" ".join(blocks(messages).values()))
        return "hm" if held is None else json.dumps({"critique": "", "verdict": "yes", "score": 9 if held else 1})

    return ScriptedChat(script)


async def test_a_critic_that_knows_is_worth_using_and_costs_what_its_chat_counted():
    chat = says(sum_holds)
    audit = await audit_verifier(sums(10, SUMS), Critic(chat), budget=FREE)
    assert (audit.verdict.worth, audit.trial.chosen.value, audit.process) == (True, 1, False)
    assert audit.cost.usage == chat.usage
    assert audit.cost.usage.calls == 40


async def test_a_critic_that_likes_what_is_wrong_is_found_out():
    audit = await audit_verifier(sums(10, EASY), Critic(says(lambda text: not sum_holds(text))), budget=FREE, best_of=3)
    assert audit.verdict.worth is False
    assert audit.verdict.text.startswith("Do not use it, a majority vote is better")


async def test_what_a_critic_says_unreadably_is_no_score_and_is_counted_and_paid():
    chat = says(lambda text: None if "= 4" in text else sum_holds(text))
    audit = await audit_verifier(sums(10, SUMS), Critic(chat), budget=FREE, batch=4)
    assert (audit.failed, audit.unreadable) == (10, 20), "each was asked twice"
    assert [(kind, count) for kind, count, _ in audit.failures] == [("reply could not be read", 10)]
    assert audit.cost.usage == chat.usage
    assert audit.chosen.calibration.n == 30
    assert [b.score for b in audit.chosen.calibration.bins] == pytest.approx([0.1, 0.9]), "nothing in the middle"


async def test_a_critic_of_states_judges_prefixes_if_asked():
    rows = [
        ("a", "1 + 2 = 3; 3 + 3 = 7; 7 + 1 = 8", False, "8", [True, False, None]),
        ("b", "1 + 2 = 3", True, "3", [True]),
    ]
    chat = says(sum_holds)
    audit = await audit_verifier(solutions(*rows, separator="; "), Critic(chat), budget=FREE, prefixes=True)
    assert (audit.process, audit.steps.auc.value, len(chat.asked)) == (True, 1.0, 4)


async def test_a_critic_that_compares_gets_its_company_in_batches():
    def script(messages, sampling):
        shown = blocks(messages)
        best = next((name for name, text in shown.items() if "candidate" in name and sum_holds(text)), "candidate none")
        return json.dumps({"critique": "", "choice": best.split("candidate ")[1].split(",")[0]})

    audit = await audit_verifier(sums(10, SUMS), VoteCritic(ScriptedChat(script)), budget=FREE, batch=4)
    assert (audit.verdict.worth, audit.trial.chosen.value, audit.failed) == (True, 1, 0)


async def test_a_budget_in_calls_is_spent_to_the_last_one_over_a_real_endpoint():
    async def judge(request):
        await request.stream([['{"critique": "", "verdict": "yes", "score": 9}']])

    async with Server(judge) as server:
        critic = Critic(OpenAIChat("m", Endpoint(server.url), prefix="none"))
        audit = await audit_verifier(sums(10, SUMS), critic, budget=Budget(max_calls=5, concurrency=2))
        assert len(server.requests) == audit.cost.usage.calls == 5
        assert audit.failed == 0
