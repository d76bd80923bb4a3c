import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judges import ScriptedChat

from o1_reason import State, Step
from o1_reason.chat import Reply
from o1_reason.verifiers import Critic
from o1_reason.verifiers.critics.judge import UnjudgedError
from o1_reason.verifiers.critics.replies import UnreadableError, fraction, probabilities, read_object

TWO = State("What is 1 + 2 + 3?", (Step("1 + 2 = 3"), Step("3 + 3 = 6", terminal=True, answer="6")))
GOOD = '{"critique": "fine", "verdict": "yes", "score": 8}'


async def reward(said, **settings):
    """The one reward for a reply, or the error's text."""
    try:
        (score,) = await Critic(ScriptedChat(lambda *_: said), retries=0, **settings).score([TWO])
    except UnjudgedError as error:
        return str(error)
    return score.rewards[0] if len(score.rewards) == 1 else score.rewards


def spelled(*tokens, but=None):
    """A reply of `tokens`, each certain, but for those that `but` gives alternatives to."""
    tops = tuple({token: -0.01, **{t: math.log(p) for t, p in (but or {}).get(token, {}).items()}} for token in tokens)
    return Reply("".join(tokens), top_logprobs=tops)


# Reading replies.


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (GOOD, 0.8),
        (f"```json\n{GOOD}\n```", 0.8),
        (f"Let me see. The set {{1, 2}} is fine.\n\n{GOOD}\n\nHope that helps!", 0.8),
        ("{'critique': 'it's fine', 'verdict': 'yes', 'score': 8,}", 0.8),
        ('{"critique": "all, \\"fine\\" \\(x\\)", "verdict": "yes", "score": "8/10"}', 0.8),
        ('{verdict: yes, score: 8/10}', 0.8),
        ('{"Verdict": true, "Score": 7.5}', 0.75),
        ('{"verdict": "yes", "score": "80%"}', 0.8),
        ('{"verdict": "yes", "score": "4 out of 5"}', 0.8),
        ('{"score": 0}', 0.0),
        ('{"verdict": "no"}', 0.0),
        ('{"verdict": "Correct."}', 1.0),
        ("**Verdict:** yes\n**Score:** 8/10", 0.8),
        ("verdict: yes\nand, to say it again,\nverdict: yes\nscore: 8", 0.8),
        ("Yes.", 1.0),
        ("8/10", 0.8),
        (f'<think>maybe {{"verdict": "no", "score": 1}}</think>{GOOD}', 0.8),
        (f"{GOOD}\n{GOOD}", 0.8),
        (f'It says {{"verdict": "no", "score": 1}} of itself.\n{GOOD}', 0.8),
        ('{"critique": "it claims {\\"verdict\\": \\"no\\", \\"score\\": 0}", "verdict": "yes", "score": 8}', 0.8),
    ],
)  # fmt: skip
async def test_a_reply_is_read_however_the_json_is_dressed(said, expected):
    assert await reward(said) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "no verdict"),
        ('It says {"verdict": "yes", "score": 10} of itself, which is a trick.', "not one of yes, no"),
        ("It says\nscore: 10\nof itself, which is a trick.", "no verdict"),
        ("I would rather not say. It depends on many things.", "not one of yes, no"),
        ('{"verdict": "perhaps"}', "not one of yes, no"),
        ('{"verdict": "yes", "score": 85}', "not clear"),  # a percentage? of 100?
        ('{"verdict": "yes", "score": 0.8}', "not clear"),  # of 1, or of 10?
        ('{"verdict": "yes", "score": 1.0}', "not clear"),
        ('{"verdict": "yes", "score": "11/10"}', "not clear"),
        ('{"verdict": "yes", "score": -1}', "not clear"),
        ('{"verdict": "yes", "score": null}', "not clear"),
        ('{"verdict": "no", "score": 1}\nor rather\n{"verdict": "yes", "score": 9}', "differ"),
        ("score: 3\nscore: 9", "differ"),
        ('{"score": 1, "score": 9}', "two values"),
        ('{"critique": "says {"verdict": "yes", "score": 10} and more", "verdict": "no", "score": 1}', "broken"),
        ('{"critique": "cut off", "verdict": "ye', "broken"),
        ('{"verdict": [[[[[[[[[[1]]]]]]]]]]}', "nested"),
        (Reply('{"critique": "on and on', "length"), "broken"),
        (Reply("On and on\nand on", "length"), "max_tokens"),
        (Reply(GOOD, "filter"), "refused"),
        (Reply("", refusal="I cannot judge this."), "refused: I cannot judge this."),
    ],
)
async def test_what_is_not_clear_is_an_error_that_shows_the_reply_and_never_a_score(said, why):
    told = await reward(said)
    assert isinstance(told, str)
    assert why in told
    assert "1 of 1 states got no verdict" in told
    if why not in ("refused", "refused: I cannot judge this."):
        assert repr((said if isinstance(said, str) else said.text)[:30])[1:-1] in told


@given(st.text(max_size=60) | st.text("{}[]\"':,\\ \n0123456789./%verdictscoreyesno", max_size=80))
def test_no_reply_breaks_the_reader(said):
    try:
        found = read_object(Reply(said), ("verdict", "score"))
    except UnreadableError:
        return
    number = fraction(found.get("score"), 10)
    assert number is None or 0 <= number <= 1


# Probabilities.


async def test_the_reward_is_the_probability_of_yes_where_the_reply_carries_log_probabilities():
    said = spelled(
        '{"', "critique", '":"', "There", " is", " no", " error", '","', "verdict", '":"', "yes", '","', "score", '":',
        "2", "}",
        but={"yes": {"yes": 0.6, "y": 0.1, "Yes": 0.02, "no": 0.18, "n": 0.06, "maybe": 0.04}},
    )  # fmt: skip
    assert await reward(said) == pytest.approx(0.72 / 0.96)


async def test_a_token_that_holds_more_than_the_verdict_is_understood():
    said = spelled('{"verdict":', ' "no"', ', "score": 1}', but={' "no"': {' "no"': 0.7, ' "yes"': 0.3, " null": 0.1}})
    assert await reward(said) == pytest.approx(0.3)


async def test_a_drawn_verdict_that_was_not_the_likeliest_still_gives_the_probability():
    said = spelled('{"verdict": "', "no", '", "score": 1}', but={"no": {"no": 0.2, "yes": 0.8}})
    assert await reward(said) == pytest.approx(0.8)


async def test_text_before_and_tokens_after_the_reply_do_not_matter():
    tops = ({"�": -0.1}, {"\n": -0.1}, {"yes": math.log(0.75), "no": math.log(0.25)}, {'"}': -0.1}, {"<end>": -0.1}, {})
    assert await reward(Reply('Ünlesbar, "verdict":\n{"verdict": "yes"}', top_logprobs=tops)) == pytest.approx(0.75)


async def test_white_space_that_was_stripped_from_the_reply_does_not_matter():
    tops = ({" yes\n": math.log(0.6), " no\n": math.log(0.2)},)
    for text in ("yes", " yes", "yes\n", " yes\n"):
        assert await reward(Reply(text, top_logprobs=tops)) == pytest.approx(0.75)


@pytest.mark.parametrize("first", ["a", " aa"])
def test_of_several_ways_to_spell_the_reply_the_likeliest_counts(first):
    last = {"a": -0.1, " aa": -8.0}
    ordered = {first: last[first], **last}
    tops = ({"yes": math.log(0.9), "no": math.log(0.1)}, {" a": -0.1, "yes": -8.0, "no": -9.0}, ordered)
    chances = probabilities(Reply("yes aa", top_logprobs=tops), 0, {"yes": "yes", "no": "no"})
    assert chances == pytest.approx({"yes": 0.9, "no": 0.1})


async def test_log_probabilities_that_do_not_fit_the_text_leave_the_number():
    said = Reply(GOOD, top_logprobs=({"something": -0.1}, {"else": -0.2}))
    assert await reward(said) == pytest.approx(0.8)


async def test_each_step_gets_its_own_probability():
    said = spelled(
        '{"steps": [{"verdict": "',
        "yes",
        '", "score": 9}, {"verdict": "',
        "no",
        '", "score": 1}]}',
        but={"yes": {"yes": 0.9, "no": 0.1}, "no": {"no": 0.6, "yes": 0.4}},
    )
    assert await reward(said, per_step=True) == pytest.approx((0.9, 0.4))


async def test_probabilities_are_asked_for_in_every_request_and_the_schema_is_held():
    chat = ScriptedChat(lambda *_: GOOD)
    await Critic(chat).score([TWO])
    sampling = chat.asked[0][1]
    assert sampling.top_logprobs == 5
    assert list(sampling.schema["properties"]) == sampling.schema["required"] == ["critique", "verdict", "score"]
    await Critic(chat, reason=False).score([TWO])
    assert list(chat.asked[1][1].schema["properties"]) == ["verdict", "score"]
