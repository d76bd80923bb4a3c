"""The embedded chat model and the verifier of its turns: they make agents work offline."""

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_tests.unit_tests import ChatModelUnitTests
from o1_reason_embedded import EmbeddedChatModel, EmbeddedVerifier, RuleVerifier, TurnVerifier
from o1_reason_embedded.puzzle import parse, parse_step, solves

from o1_reason import ReasoningMiddleware, State, Step, search
from o1_reason.answers import extract_answer
from o1_reason.errors import ConfigurationError, VerifierError
from o1_reason.resolve import resolve_verifier
from o1_reason.turns import step_of

QUESTION = "Make 24 from 4, 5, 6 and 10"
PROMPT, TRACE = 7, 27  # tokens of a puzzle of four numbers, and of its solution


class TestStandard(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return EmbeddedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def has_structured_output(self) -> bool:
        return False  # of a schema it knows only what takes one text


@tool
def submit(expression: str) -> str:
    """Hand in the solution."""
    return "right" if solves(parse(QUESTION), expression) else "wrong"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def after(*results: Any, model: Any = None, question: str = QUESTION) -> AIMessage:
    """What the model says after calls of `submit` that were answered by `results`."""
    messages: list[Any] = [HumanMessage(question)]
    for i, result in enumerate(results):
        call = {"name": "submit", "args": {"expression": f"{i} + 23"}, "id": str(i), "type": "tool_call"}
        messages.append(AIMessage("", tool_calls=[call]))
        given = {"content": result} if isinstance(result, str) else result
        messages.append(ToolMessage(tool_call_id=str(i), **given))
    return (model or EmbeddedChatModel()).bind_tools([submit]).invoke(messages)


# Without tools.


async def test_it_writes_its_trace_and_marks_the_expression_and_counts_what_the_decoder_did():
    message = await EmbeddedChatModel(temperature=0).ainvoke(QUESTION)
    *trace, empty, answer = message.text.split("\n")
    assert [parse_step(line) is not None for line in trace] == [True] * 3
    assert (empty, answer.split(": ")[0]) == ("", "Answer")
    assert message.usage_metadata == {
        "input_tokens": PROMPT, "output_tokens": TRACE, "total_tokens": PROMPT + TRACE,
    }  # fmt: skip


async def test_samples_differ_calls_repeat_in_their_order_and_a_seed_makes_one_repeat_by_itself():
    model, twin = EmbeddedChatModel(seed=5), EmbeddedChatModel(seed=5)
    texts = [(await model.ainvoke(QUESTION)).text for _ in range(6)]
    assert len(set(texts)) > 1
    assert texts == [twin.invoke(QUESTION).text for _ in range(6)]
    assert len({(await model.ainvoke(QUESTION, seed=9)).text for _ in range(3)}) == 1
    greedy = EmbeddedChatModel(temperature=0)
    assert len({greedy.invoke(QUESTION).text for _ in range(3)}) == 1
    assert greedy.invoke(QUESTION).text == model.invoke(QUESTION, temperature=0).text


async def test_it_cannot_do_anything_else_and_says_so():
    model = EmbeddedChatModel()
    for messages in ("Hello!", [SystemMessage("Be brief.")]):
        message = await model.ainvoke(messages)
        assert "puzzle" in message.text
        assert message.usage_metadata == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def test_stop_strings_and_a_bad_temperature():
    assert "Answer" not in EmbeddedChatModel().invoke(QUESTION, stop=["\n\n"]).text
    with pytest.raises(ConfigurationError, match="temperature"):
        EmbeddedChatModel(temperature=-1)


# With tools.


def test_it_calls_the_tool_that_takes_an_expression_with_what_its_trace_amounts_to():
    message = EmbeddedChatModel(temperature=0).bind_tools([add, submit]).invoke(QUESTION)
    (call,) = message.tool_calls
    assert call["name"] == "submit"
    assert call["args"] == {"expression": extract_answer(EmbeddedChatModel(temperature=0).invoke(QUESTION).text)}
    assert message.text.count("\n") == 2
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == TRACE


@pytest.mark.parametrize(
    ("tools", "choice", "called"),
    [
        ([add], None, False),
        ([submit], "none", False),
        ([submit], "any", True),
        ([submit], {"type": "function", "function": {"name": "submit"}}, True),
    ],
)
def test_tools_that_do_not_fit_or_are_not_chosen_are_left_alone(tools: Any, choice: Any, called: bool):
    message = EmbeddedChatModel().bind_tools(tools, tool_choice=choice).invoke(QUESTION)
    assert bool(message.tool_calls) == called
    assert ("Answer: " in message.text) != called


@pytest.mark.parametrize("result", ["right", "Correct!", "24", "24.0", "That is the solution."])
def test_a_result_that_says_right_is_told_in_words(result: str):
    message = after(result)
    assert (message.text, message.tool_calls) == ("Solved: 0 + 23 = 24.", [])


@pytest.mark.parametrize(
    "result", ["wrong", "This is not right.", "23", "It isn't.", {"content": "24 it was", "status": "error"}]
)
def test_a_result_that_says_wrong_makes_it_try_again_and_then_give_up(result: Any):
    assert after(result).tool_calls
    assert after(result, result).tool_calls
    last = after(result, result, result)
    assert (last.text, last.tool_calls) == ("I could not make 24.", [])
    assert not after(result, model=EmbeddedChatModel(attempts=1)).tool_calls


def test_results_of_an_earlier_question_do_not_count():
    messages = [HumanMessage("1 2 3 4"), AIMessage("", tool_calls=[]), ToolMessage("right", tool_call_id="0")]
    message = EmbeddedChatModel().bind_tools([submit]).invoke([*messages, HumanMessage(QUESTION)])
    assert message.tool_calls


# Verification of turns.


async def turn(expression: str, trace: str = "") -> State:
    call = {"name": "submit", "args": {"expression": expression}, "id": "1", "type": "tool_call"}
    step = step_of(AIMessage(trace, tool_calls=[call]))
    assert step is not None
    return State(QUESTION, (step,))


GOOD = "10 - 4 = 6 (left: 5 6 6)\n5 * 6 = 30 (left: 6 30)\n30 - 6 = 24 (left: 24)"
FAKED = "4 + 5 = 9 (left: 6 9 10)\n6 + 10 = 16 (left: 9 16)\n9 + 16 = 24 (left: 24)"


async def test_a_turn_is_worth_what_the_solution_in_it_is_worth():
    states = [await turn("4 + 5 * 6 - 10", GOOD), await turn("4 + 5 + 6 + 10", FAKED)]
    good, faked = await TurnVerifier().score(states)
    assert good.rewards[0] > 0.9 > 0.1 > faked.rewards[0]
    steps = (*map(Step, GOOD.split("\n")[:2]), Step("30 - 6 = 24 (left: 24)", True, "4 + 5 * 6 - 10"))
    (plain,) = await EmbeddedVerifier().score([State(QUESTION, steps)])
    assert good.rewards == plain.rewards[-1:]
    assert (good.usage.calls, good.usage.prompt_tokens) == (1, PROMPT + TRACE)


async def test_the_rules_need_no_trace_and_the_reward_model_does():
    states = [await turn("4 + 5 * 6 - 10"), await turn("4 + 5 + 6 + 10"), await turn("24")]
    assert [score.rewards for score in await TurnVerifier(RuleVerifier()).score(states)] == [(1.0,), (0.0,), (0.0,)]
    with pytest.raises(VerifierError):
        await TurnVerifier().score(states)


async def test_texts_are_read_by_the_answer_they_mark_and_without_one_nothing_is_known():
    said, small_talk = step_of(AIMessage(f"{GOOD}\n\nAnswer: 4 + 5 * 6 - 10")), step_of(AIMessage("Well then."))
    assert said is not None
    assert small_talk is not None
    states = [State(QUESTION, (said,)), State(QUESTION, (small_talk,)), State(QUESTION)]
    first, second, third = await TurnVerifier(RuleVerifier()).score(states)
    assert (first.rewards, second.rewards, third.rewards) == ((1.0,), (0.5,), (0.5,))


def test_it_goes_by_a_name_too():
    assert isinstance(resolve_verifier("embedded:turns"), TurnVerifier)
    assert TurnVerifier().identity == f"turns({EmbeddedVerifier().identity})"


# Together.


async def test_an_agent_with_one_attempt_fails_on_its_own_and_succeeds_with_the_middleware():
    puzzle = "4 5 6 10"

    def agent(*middleware: Any) -> tuple[Any, list[str]]:
        attempts: list[str] = []

        @tool
        def submit(expression: str) -> str:
            """Hand in the solution. There is only one attempt."""
            attempts.append(expression)
            return "right" if len(attempts) == 1 and solves(parse(puzzle), expression) else "wrong"

        return create_agent(EmbeddedChatModel(), [submit], middleware=middleware), attempts

    alone, attempts = agent()
    state = await alone.ainvoke({"messages": [HumanMessage(puzzle)]})
    assert state["messages"][-1].text == "I could not make 24."
    assert not solves(parse(puzzle), attempts[0])
    thinking, attempts = agent(ReasoningMiddleware(TurnVerifier()))
    state = await thinking.ainvoke({"messages": [HumanMessage(puzzle)]})
    assert len(attempts) == 1, "no tool ran while candidates were compared"
    assert state["messages"][-1].text == f"Solved: {attempts[0]} = 24."
    assert state["reasoning_usage"]["completion_tokens"] == 8 * TRACE


async def test_it_can_be_searched_over_like_any_chat_model():
    result = await search(QUESTION, EmbeddedChatModel(), RuleVerifier(), "best_of_n")
    assert result.answer is not None
    assert solves(parse(QUESTION), result.answer)
