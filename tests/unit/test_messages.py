"""From a conversation to a question and its context: roles, tool calls and pictures are kept."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from o1_reason import ConfigurationError
from o1_reason.messages import asked

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def test_the_last_human_message_is_the_question_and_the_rest_is_context_as_chat_completions_have_it():
    call = {"name": "look", "args": {"at": 1}, "id": "x"}
    question, context = asked(
        [
            SystemMessage("Be kind."),
            HumanMessage("Hello"),
            AIMessage(content=[{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Yes?"}]),
            AIMessage("", tool_calls=[call]),
            ToolMessage("seen", tool_call_id="x"),
            HumanMessage("What is it?"),
        ]
    )
    assert question == "What is it?"
    assert [message["role"] for message in context] == ["system", "user", "assistant", "assistant", "tool"]
    assert context[2]["content"] == "Yes?", "what the model thought aloud is left out"
    function = {"name": "look", "arguments": '{"at": 1}'}
    assert context[3]["tool_calls"] == [{"type": "function", "id": "x", "function": function}]
    assert context[4]["tool_call_id"] == "x"


def test_pictures_of_the_question_stand_right_before_it():
    parts = [{"type": "text", "text": "What is it?"}, PICTURE]
    question, context = asked([SystemMessage("Be kind."), HumanMessage(content=parts)])  # type: ignore[arg-type]
    assert question == "What is it?"
    assert context[-1] == {"role": "user", "content": [PICTURE]}


def test_without_a_human_message_there_is_no_question():
    with pytest.raises(ConfigurationError, match="question"):
        asked([SystemMessage("Be kind.")])
