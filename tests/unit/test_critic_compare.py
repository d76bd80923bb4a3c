import math
from collections import Counter
from itertools import permutations

import pytest
from judges import ScriptedChat, blocks, in_turn

from o1_reason import BestOfN, ConfigurationError, State, Step, VerifierError, search
from o1_reason.chat import Reply
from o1_reason.errors import UnjudgedError
from o1_reason.mdp import Usage
from o1_reason.testing import ScriptedPolicy
from o1_reason.verifiers.critics.pairwise import PairwiseCritic, pairs
from o1_reason.verifiers.critics.vote import VoteCritic

START = State("How good?", (Step("begin"),))


def states(*worth):
    """Siblings that say what they are worth."""
    return [START + Step(f"worth {w}") for w in worth]


def shown(messages):
    """What the candidates of a request are worth, by label."""
    found = blocks(messages).items()
    return {label[10]: int(text.split()[1]) for label, text in found if label.startswith("candidate")}


def best(messages, sampling):
    """Chooses the candidate of most worth; none if that is not worth anything, tie if both are worth the same."""
    worth = shown(messages)
    if not worth:
        return '{"verdict": "yes", "score": 7}'
    most = max(worth.values())
    if '"tie"' in messages[-1]["content"] and len(set(worth.values())) == 1:
        return '{"choice": "tie"}'
    label = max(worth, key=lambda label: worth[label]) if most > 0 else "none"
    return f'{{"critique": "worth {most}", "choice": "{label}"}}'


def always_first(messages, sampling):
    return '{"choice": "A"}'


async def rewards(critic, *worth):
    return [score.rewards[0] for score in await critic.score(states(*worth))]


# Votes.


async def test_the_reward_is_the_share_of_votes():
    assert await rewards(VoteCritic(ScriptedChat(best)), 1, 3, 2) == [0.0, 1.0, 0.0]
    first, *rest = await VoteCritic(ScriptedChat(best)).score(states(3, 1))
    assert first.critique == "2.00 of 2 votes among 2: worth 3"
    assert rest[0].critique == "0.00 of 2 votes among 2"


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("votes", [1, 3, 4, 9])
async def test_a_model_that_always_chooses_the_first_place_gives_all_the_same(n, votes):
    for temperature in (0.0, 1.0):
        chat = ScriptedChat(always_first)
        assert await rewards(VoteCritic(chat, votes=votes, temperature=temperature), *range(n)) == pytest.approx(
            [1 / n] * n
        )
        assert len(chat.asked) >= min(votes, math.factorial(n) if temperature == 0 else votes)


async def test_no_two_ballots_at_temperature_0_are_the_same():
    chat = ScriptedChat(best)
    await rewards(VoteCritic(chat, votes=100), 1, 2, 3)
    assert {tuple(shown(messages).values()) for messages, _ in chat.asked} == set(permutations((1, 2, 3)))
    assert len(chat.asked) == 6


async def test_equal_ballots_at_other_temperatures_are_drawn_anew():
    chat = ScriptedChat(best)
    await rewards(VoteCritic(chat, votes=3, temperature=1.0), 1)
    assert len({sampling.seed for _, sampling in chat.asked}) == len(chat.asked) == 3


async def test_votes_for_none_leave_rewards_low_and_a_lone_state_can_lose():
    assert await rewards(VoteCritic(ScriptedChat(best)), 0, 0, 0) == [0.0, 0.0, 0.0]
    assert await rewards(VoteCritic(ScriptedChat(best)), 0) == [0.0]
    assert await rewards(VoteCritic(ScriptedChat(best)), 1) == [1.0]


async def test_a_ballot_counts_as_the_probabilities_of_the_choices_where_the_reply_carries_them():
    def unsure(messages, sampling):
        of = {"A": 0.25, "B": 0.125, "none": 0.1, "no": 0.025, "C": 0.4}  # there is no candidate C
        tops = ({'{"choice": "': -0.1}, {token: math.log(p) for token, p in of.items()}, {'"}': -0.1})
        return Reply('{"choice": "A"}', top_logprobs=tops)

    assert await rewards(VoteCritic(ScriptedChat(unsure), votes=1), 5) == pytest.approx([0.25 / 0.375])
    assert await rewards(VoteCritic(ScriptedChat(unsure)), 5, 6) == pytest.approx([0.375 / 2 / 0.5] * 2)


async def test_equal_candidates_are_one_and_questions_are_voted_on_apart():
    assert await rewards(VoteCritic(ScriptedChat(best)), 2, 2, 1) == [1.0, 1.0, 0.0]
    other = State("Another question?", (Step("worth 9"),))
    scores = await VoteCritic(ScriptedChat(best)).score([other, *states(1, 2)])
    assert [score.rewards[0] for score in scores] == [1.0, 0.0, 1.0]


async def test_large_batches_vote_in_groups_and_the_first_of_each_in_a_final():
    chat = ScriptedChat(best)
    critic = VoteCritic(chat, group=4, votes=1)
    assert await rewards(critic, 1, 2, 9, 3, 4, 5, 6, 7, 8) == [0, 0, 1, 0, 0, 0.5, 0, 0, 0.5]
    assert Counter(len(shown(messages)) for messages, _ in chat.asked) == {3: 12}
    deep = await rewards(VoteCritic(ScriptedChat(best), group=2, votes=1), *range(9))
    assert max(deep) == deep[8] == 1.0 and sorted(deep)[:4] == [0, 0, 0, 0]
    chat = ScriptedChat(best)
    assert await rewards(VoteCritic(chat, group=2, votes=1), 0, 0, -1, -2) == [0, 0, 0, 0]
    assert len(chat.asked) == 3  # equal candidates are one, and no final of those that nobody wanted


async def test_ballots_that_cannot_be_read_are_dropped_and_told():
    chat = ScriptedChat(in_turn('{"choice": "A"}', "A or B?", '{"choice": "C"}', "no idea"))
    critic = VoteCritic(chat, retries=0)
    first, second = await critic.score(states(1, 2))
    assert sorted([first.rewards[0], second.rewards[0]]) == [0.0, 1.0]
    assert critic.parse_failures == 1 and "1 replies could not be read" in (first.critique or "")
    with pytest.raises(UnjudgedError, match=r"2 of 2 states .* 2 replies .*no idea"):
        await VoteCritic(ScriptedChat(in_turn("no idea")), retries=0).score(states(1, 2))


# Pairs.


async def test_the_reward_is_the_share_of_comparisons_won():
    assert await rewards(PairwiseCritic(ScriptedChat(best)), 1, 3, 2, 2) == pytest.approx([0, 1, 0.5, 0.5])
    chat = ScriptedChat(best)
    scores = await PairwiseCritic(chat).score(states(1, 2, 3))
    assert len(chat.asked) == 6  # three pairs, both orders
    assert scores[1].critique == "won 1.00 of 2 comparisons"


async def test_a_model_that_always_chooses_the_first_shown_prefers_nobody():
    assert await rewards(PairwiseCritic(ScriptedChat(always_first)), *range(5)) == [0.5] * 5


async def test_a_comparison_counts_as_the_probabilities_where_the_reply_carries_them():
    def unsure(messages, sampling):
        p = 0.9 if shown(messages)["A"] == 1 else 0.4
        alternatives = {"A": math.log(p * 0.8), "B": math.log((1 - p) * 0.8), "tie": math.log(0.2)}
        return Reply('{"choice": "A"}', top_logprobs=({'{"choice": "': -0.1}, alternatives, {'"}': -0.1}))

    wins = (0.9 * 0.8 + 0.1 + 1 - (0.4 * 0.8 + 0.1)) / 2
    assert await rewards(PairwiseCritic(ScriptedChat(unsure)), 1, 2) == pytest.approx([wins, 1 - wins])


async def test_a_tie_in_one_order_is_half_a_win():
    def wavering(messages, sampling):
        return '{"choice": "tie"}' if shown(messages)["A"] == 1 else '{"choice": "A"}'

    assert await rewards(PairwiseCritic(ScriptedChat(wavering)), 1, 2) == [0.25, 0.75]


@pytest.mark.parametrize(
    ("n", "opponents", "each"), [(2, 6, 1), (7, 6, 6), (8, 6, 6), (20, 4, 4), (5, 2, 2), (4, 2, 2)]
)
async def test_the_number_of_comparisons_is_bounded_and_equal_for_all(n, opponents, each):
    met = Counter(i for pair in pairs(n, opponents) for i in pair)
    assert set(met.values()) == {each} and len(met) == n
    assert len({frozenset(pair) for pair in pairs(n, opponents)}) == len(pairs(n, opponents)) == n * each // 2
    chat = ScriptedChat(best)
    ranked = await rewards(PairwiseCritic(chat, opponents=opponents), *range(1, n + 1))
    assert len(chat.asked) == n * each
    assert ranked[-1] == 1.0 and ranked[0] == 0.0


async def test_a_pair_counts_only_if_both_orders_could_be_read():
    def shy(messages, sampling):
        return "..." if list(shown(messages).values()) == [3, 1] else always_first(messages, sampling)

    critic = PairwiseCritic(ScriptedChat(shy))
    assert await rewards(critic, 1, 2, 3) == [0.5, 0.5, 0.5]
    assert critic.parse_failures == 2
    with pytest.raises(UnjudgedError) as caught:
        await critic.score(states(3, 1))
    assert caught.value.scores == (None, None)


async def test_a_lone_state_is_judged_by_itself():
    chat = ScriptedChat(in_turn("hm", '{"verdict": "yes", "score": 7}'))
    critic = PairwiseCritic(chat)
    (score,) = await critic.score(states(1))
    assert score.rewards == (0.7,) and score.usage == chat.usage
    assert critic.parse_failures == 1 and "1 replies" in (score.critique or "")
    with pytest.raises(UnjudgedError, match="1 of 1"):
        await PairwiseCritic(ScriptedChat(in_turn("hm"))).score(states(1))


# Both.


@pytest.mark.parametrize("kind", [VoteCritic, PairwiseCritic])
async def test_a_call_is_paid_for_once_and_runs_repeat(kind):
    asked = []
    for _ in range(2):
        chat = ScriptedChat(best, delay=0.01)
        scores = await kind(chat).score(states(1, 2, 3, 4))
        assert sum((score.usage for score in scores), Usage()) == chat.usage
        assert chat.most == len(chat.asked)  # all at the same time
        asked.append(repr(chat.asked))
    assert asked[0] == asked[1]


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 20])
@pytest.mark.parametrize("kind", [VoteCritic, PairwiseCritic])
async def test_the_bound_holds_and_its_calls_are_exact(kind, n):
    chat = ScriptedChat(best)
    critic = kind(chat)
    bound = critic.bound(START, n, 1)
    await critic.score([START + Step(f"worth {i} " + "word " * 100) for i in range(1, n + 1)])
    assert bound.calls == chat.usage.calls
    assert bound.prompt_tokens >= chat.usage.prompt_tokens
    assert bound.completion_tokens == bound.calls * 512


@pytest.mark.parametrize("kind", [VoteCritic, PairwiseCritic])
async def test_what_candidates_have_in_common_is_shown_once_and_first(kind):
    chat = ScriptedChat(best)
    await kind(chat).score([START + Step("also") + Step(f"worth {i}") for i in (1, 2)])
    labels = [[*blocks(messages)] for messages, _ in chat.asked]
    assert labels == [["problem", "step 1", "step 2", "candidate A, step 3", "candidate B, step 3"]] * 2
    texts = [messages[1]["content"] for messages, _ in chat.asked]
    assert texts[0].split("BEGIN candidate")[0] == texts[1].split("BEGIN candidate")[0]


@pytest.mark.parametrize("kind", [VoteCritic, PairwiseCritic])
def test_its_identity_tells_apart_all_that_changes_scores(kind):
    chat = ScriptedChat(best)
    own = [{"votes": 7}, {"group": 3}] if kind is VoteCritic else [{"opponents": 2}]
    changed = [
        {},
        *own,
        {"temperature": 1.0},
        {"instructions": "x"},
        {"reason": False},
        {"max_tokens": 9},
        {"retries": 3},
    ]
    assert len({kind(chat, **settings).identity for settings in changed}) == len(changed)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (VoteCritic, {"votes": 0}), (VoteCritic, {"group": 1}), (VoteCritic, {"group": 11}),
        (PairwiseCritic, {"opponents": 0}), (PairwiseCritic, {"opponents": 3}), (PairwiseCritic, {"max_tokens": 0}),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(kind, settings):
    with pytest.raises(ConfigurationError):
        kind(ScriptedChat(best), **settings)


@pytest.mark.parametrize("kind", [VoteCritic, PairwiseCritic])
async def test_no_states_have_no_scores(kind):
    assert list(await kind(ScriptedChat(best)).score([])) == []


@pytest.mark.parametrize("kind", [VoteCritic, PairwiseCritic])
async def test_a_search_takes_the_candidate_that_wins(kind):
    worth = {"11": 1, "12": 4, "13": 2}
    policy = ScriptedPolicy({(): [Step(f"worth {w}", terminal=True, answer=a) for a, w in worth.items()]})
    chat = ScriptedChat(best)
    result = await search("?", policy, kind(chat), BestOfN(3))
    assert result.answer == "12"
    assert result.verifier_usage == chat.usage
    with pytest.raises(VerifierError):
        await search("?", ScriptedPolicy(policy.script), kind(ScriptedChat(in_turn("...")), retries=0), BestOfN(3))
