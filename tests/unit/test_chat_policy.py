"""How a chat model's replies become steps, with a scripted chat: exact finishes that no model gives on demand."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o1_reason import BeamSearch, ChainOfThought, State, Step, Usage, search
from o1_reason.chat import Message, Reply, Sampling, covering, find_stop, without_echo
from o1_reason.chat_policy import NEXT, ONE_STEP, REST, STEPS, ChatPolicy, conversation
from o1_reason.errors import ConfigurationError
from o1_reason.protocols import check_proposals
from o1_reason.segment import split_steps

PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}


class ScriptedChat:
    """Gives `replies`, and remembers what it was shown."""

    identity = "scripted"

    def __init__(self, *replies: Reply, continues: bool = True) -> None:
        self.replies, self._continues = replies, continues
        self.asked: list[tuple[list[Message], Sampling, str | None]] = []

    async def continues(self) -> bool:
        return self._continues

    async def complete(
        self, messages: Sequence[Message], sampling: Sampling = Sampling(), prefix: str | None = None
    ) -> tuple[list[Reply], Usage]:
        self.asked.append((list(messages), sampling, prefix))
        return list(self.replies), Usage(1, 10, sum(reply.tokens for reply in self.replies))

    def bound(self, messages: Sequence[Message], sampling: Sampling, prefix: str | None = None) -> Usage:
        return Usage(1, len(messages), sampling.n * (sampling.max_tokens or 0))


async def steps_of(reply: Reply, *before: str, max_steps: int = 1, continues: bool = True, **settings: Any) -> Any:
    policy = ChatPolicy(ScriptedChat(reply, continues=continues), **settings)
    state = State("Q", tuple(map(Step, before)))
    proposals = check_proposals(await policy.propose(state, 1, max_steps), 1, max_steps)
    return proposals.candidates[0] if proposals.candidates else None


# Continuing the text.


async def test_a_step_that_a_stop_string_ended_is_a_step():
    (step,) = await steps_of(Reply("First, add.", "stop", 4, -0.5))
    assert step == Step("First, add.", False, None, -0.5, 4)


async def test_a_turn_that_the_model_ended_is_terminal_with_or_without_an_answer():
    assert (await steps_of(Reply("The answer is 5.", "end")))[0] == Step("The answer is 5.", True, "5")
    assert (await steps_of(Reply("So it is.", "end"), "The answer is 5."))[0] == Step("So it is.", True, "5")
    assert (await steps_of(Reply("Who knows?", "end")))[0] == Step("Who knows?", True, None)


async def test_where_the_server_does_not_tell_stop_from_end_an_answer_ends_the_path():
    assert not (await steps_of(Reply("Add.", "unknown")))[0].terminal
    assert (await steps_of(Reply("Answer: 5", "unknown")))[0].answer == "5"


async def test_nothing_more_to_say_ends_the_path_with_the_answer_that_stands_there():
    for finish in ("end", "unknown"):
        (step,) = await steps_of(Reply("", finish), "x = 5", "Answer: 5")
        assert (step.text, step.terminal, step.answer) == ("", True, "5")
    assert await steps_of(Reply("", "end")) is None, "no solution at all"
    assert await steps_of(Reply(" \n", "length"), "x") is None
    assert await steps_of(Reply("", "filter"), "x") is None


@pytest.mark.parametrize("max_steps", [1, 8])
async def test_what_the_token_limit_cut_is_never_terminal(max_steps):
    steps = await steps_of(Reply("Answer: 5", "length"), max_steps=max_steps)
    assert not steps[-1].terminal
    assert steps[-1].answer is None


async def test_a_whole_solution_is_cut_into_steps_and_what_is_too_much_stays_in_the_last():
    reply = Reply("one\n\ntwo\n\nthree\n\nAnswer: 4", "end", tokens=100)
    steps = await steps_of(reply, max_steps=8)
    assert [step.text for step in steps] == ["one", "two", "three", "Answer: 4"]
    assert [step.terminal for step in steps] == [False, False, False, True]
    assert sum(step.tokens for step in steps) == pytest.approx(100, abs=2)
    steps = await steps_of(reply, max_steps=2)
    assert [step.text for step in steps] == ["one", "two\n\nthree\n\nAnswer: 4"]


async def test_an_answer_in_the_middle_does_not_end_a_whole_solution():
    steps = await steps_of(Reply("The answer is 3, I think.\n\nNo.\n\nAnswer: 4", "end"), max_steps=9)
    assert [step.terminal for step in steps] == [False, False, True]
    assert steps[-1].answer == "4"


async def test_the_prompt_is_the_text_so_far_and_only_grows():
    chat = ScriptedChat(Reply("x", "stop"))
    policy = ChatPolicy(chat)
    state = State("Q")
    for text in ("one", "two"):
        await policy.propose(state, 3, seed=7)
        state += Step(text)
    await policy.propose(state, 1, 64)
    assert [prefix for _, _, prefix in chat.asked] == ["", "one\n\n", "one\n\ntwo\n\n"]
    assert all(messages == chat.asked[0][0] for messages, _, _ in chat.asked)
    assert chat.asked[0][0] == [{"role": "system", "content": STEPS}, {"role": "user", "content": "Q"}]
    first, last = chat.asked[0][1], chat.asked[-1][1]
    assert (first.n, first.stop, first.seed, first.max_tokens) == (3, ("\n\n",), 7, 512)
    assert (last.stop, last.max_tokens) == ((), 4096)


# Turn by turn.


async def test_without_continuation_each_step_is_a_turn_and_the_conversation_only_grows():
    chat = ScriptedChat(Reply("three"), continues=False)
    policy = ChatPolicy(chat)
    await policy.propose(State("Q", (Step("one"),)), 1)
    await policy.propose(State("Q", (Step("one"), Step("two"))), 1)
    shorter, longer = (messages for messages, _, _ in chat.asked)
    assert longer[: len(shorter)] == shorter
    assert longer[0]["content"] == ONE_STEP
    assert [message["content"] for message in longer[1:]] == ["Q", "one", NEXT, "two", NEXT]
    assert all(sampling.stop == () and prefix is None for _, sampling, prefix in chat.asked)
    await policy.propose(State("Q", (Step("one"),)), 1, 9)
    assert chat.asked[-1][0][-1]["content"] == REST
    await policy.propose(State("Q"), 1, 9)
    assert chat.asked[-1][0][0]["content"] == STEPS


async def test_a_turn_is_terminal_only_with_an_answer():
    assert not (await steps_of(Reply("Add."), continues=False))[0].terminal
    assert (await steps_of(Reply("Answer: 5"), continues=False))[0].terminal
    assert await steps_of(Reply("Answer: 5", "filter"), continues=False) is None
    assert not (await steps_of(Reply("Answer: 5", "length"), continues=False))[0].terminal


async def test_a_finished_state_is_not_continued():
    chat = ScriptedChat(Reply("x"))
    assert (await ChatPolicy(chat).propose(State("Q", (Step("a", True, "1"),)), 4)).candidates == ()
    assert not chat.asked


async def test_modes_settings_and_temperature_are_honoured():
    chat = ScriptedChat(Reply("x"), continues=True)
    await ChatPolicy(chat, mode="instruct", temperature=0.3).propose(State("Q"), 1)
    assert chat.asked[-1][2] is None
    assert chat.asked[-1][1].temperature == 0.3
    await ChatPolicy(chat, mode="continue", separator="\n", step_tokens=9, instructions="").propose(
        State("Q"), 1, temperature=0.0
    )
    messages, sampling, _ = chat.asked[-1]
    assert messages == [{"role": "user", "content": "Q"}]
    assert (sampling.stop, sampling.max_tokens, sampling.temperature) == (("\n",), 9, 0.0)


async def test_an_extract_of_your_own_decides_what_is_finished():
    def total(state: State) -> str | None:
        return state.steps[-1].text[2:] if state.steps[-1].text.startswith("= ") else None

    (step,) = await steps_of(Reply("= 24", "stop"), extract=total)
    assert step == Step("= 24", True, "24")


@pytest.mark.parametrize(
    "settings", [{"mode": "guess"}, {"separator": ""}, {"step_tokens": 0}, {"solution_tokens": 0}, {"temperature": -1}]
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError):
        ChatPolicy(ScriptedChat(), **settings)


def test_the_bound_is_that_of_the_dearer_mode_and_the_identity_names_every_setting():
    policy = ChatPolicy(ScriptedChat())
    assert policy.bound(State("Q", (Step("a"),)), 3, 1) == Usage(1, 4, 3 * 512)
    identities = {
        ChatPolicy(ScriptedChat(), **settings).identity
        for settings in ({}, {"temperature": 0.1}, {"step_tokens": 3}, {"instructions": "x"}, {"mode": "instruct"})
    }
    assert len(identities) == 5


def test_pictures_join_the_question_and_instructions_the_system_message():
    state = State("Q", (), ({"role": "user", "content": [PICTURE]},))
    assert conversation(state, "") == [{"role": "user", "content": [PICTURE, {"type": "text", "text": "Q"}]}]
    state = State("Q", (), ({"role": "system", "content": [{"type": "text", "text": "Be kind."}]},))
    assert conversation(state, "Think.")[0]["content"][1]["text"] == "Think."
    assert conversation(State("Q"), "Think.")[0] == {"role": "system", "content": "Think."}


async def test_a_search_over_it_finds_the_answer():
    result = await search("Q", ChatPolicy(ScriptedChat(Reply("Answer: 5", "end", 3))), None, ChainOfThought())
    assert (result.answer, result.usage) == ("5", Usage(1, 10, 3))
    result = await search("Q", ChatPolicy(ScriptedChat(Reply("Add.", "stop"))), None, BeamSearch(2, 2, max_depth=3))
    assert result.answer is None
    assert result.stop == "exhausted"


# Where steps begin and end.


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\n\nb", ["a", "b"]),
        ("\n\n\n\na\n\n\n\n\nb\n\n", ["a", "b"]),
        ("a\nb\n\nc", ["a\nb", "c"]),
        ("", []),
        (" \n\n ", []),
        ("code:\n\n```\nx\n\ny\n```\n\nend", ["code:", "```\nx\n\ny\n```", "end"]),
        ("\\[\na\n\nb\n\\]\n\nc", ["\\[\na\n\nb\n\\]", "c"]),
        ("$$a\n\nb$$\n\nc", ["$$a\n\nb$$", "c"]),
        ("```\nnever closed\n\nx", ["```\nnever closed\n\nx"]),
    ],
)
def test_text_is_cut_at_empty_lines_but_not_inside_code_or_formulas(text, steps):
    assert split_steps(text) == steps


@given(st.text(alphabet="ab\n `$", max_size=80), st.integers(1, 5))
def test_cutting_loses_nothing_but_white_space_and_keeps_to_the_limit(text, most):
    def solid(given: str) -> str:
        return "".join(given.split())

    assert solid("".join(split_steps(text))) == solid(text)
    limited = split_steps(text, most=most)
    assert len(limited) <= most
    assert solid("".join(limited)) == solid(text)
    assert all(step.strip() for step in limited)


# What servers do to text.


def test_a_beginning_that_was_sent_back_is_taken_off():
    assert without_echo("one\n\ntwo", "one\n\n") == "two"
    assert without_echo(" one\n\ntwo", "one\n\n") == "two"
    assert without_echo("one two", "one\n\n") == " two"
    assert without_echo("two", "one\n\n") == "two"
    assert without_echo("two", None) == "two"


def test_a_stop_string_counts_once_there_is_text_before_it():
    assert find_stop("\n\nab\n\nc", ("\n\n",)) == 4
    assert find_stop("ab;c\n\n", ("\n\n", ";")) == 2
    assert find_stop("ab", ("\n\n",)) is None
    assert find_stop("ab", ()) is None


def test_tokens_that_make_up_a_text_are_counted_whatever_white_space_was_trimmed():
    assert covering([" a", " b", "\n\n", "c"], "a b") == 2
    assert covering(["a", "b"], "ab\n") == 2
    assert covering([], "ab") == 0
    assert covering(["a"], "") == 0
