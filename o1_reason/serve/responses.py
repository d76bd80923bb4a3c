"""Requests and replies as OpenAI's Responses API has them: stateless, text in, a reasoning item and a message out."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..result import Result
from .stream import event
from .wire import ApiError, ChatRequest, Message, Wish, answer_text, details, finish_reason, honest, usage_data

ALONE = "nothing is kept between requests; send the whole conversation as input"
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "the search calls no tools; leave them out"),
    "tool_choice": (("none", "auto"), "the search calls no tools; leave it out"),
    "previous_response_id": ((), ALONE),
    "conversation": ((), ALONE),
    "background": ((False,), "a reply comes in the request that asks for it; leave it out"),
    "prompt": ((), "there are no stored prompts here; send instructions and input"),
    "top_logprobs": ((0,), "an answer has no log-probabilities; its confidence is in the reply's field reasoner"),
}
IGNORED = (
    "temperature", "top_p", "parallel_tool_calls", "max_tool_calls", "user", "safety_identifier", "metadata", "store",
    "service_tier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "truncation", "include",
    "stream_options",
)  # fmt: skip


class Effort(BaseModel):
    """How hard to think; how it is summed up is not for the request to say."""

    model_config = ConfigDict(extra="ignore")

    effort: str | None = None


class Text(BaseModel):
    """Answers are plain text."""

    model_config = ConfigDict(extra="ignore")

    format: dict[str, Any] = {"type": "text"}


class ResponsesRequest(BaseModel):
    """The body of ``POST /v1/responses``. Fields that nothing honours are refused (ApiError) or in `IGNORED`."""

    model_config = ConfigDict(extra="forbid")

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool = False
    max_output_tokens: int | None = Field(None, ge=1)
    reasoning: Effort = Effort()
    text: Text = Text()
    seed: int | None = None
    reasoner: Wish = Wish()

    @model_validator(mode="before")
    @classmethod
    def _honest(cls, data: Any) -> Any:
        return honest(data, REFUSED, IGNORED)

    def as_chat(self) -> ChatRequest:
        """The same request as chat completions have it. Raises ApiError for what a search cannot take in."""
        if self.text.format.get("type") != "text":
            raise ApiError(400, "text.format cannot be honoured: answers are plain text", param="text.format")
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        messages = [_message(item) for item in items if item.get("type") != "reasoning"]
        if self.instructions:
            messages.insert(0, Message(role="system", content=self.instructions))
        if not messages:
            raise ApiError(400, "the input has no message; the last one of the user is the question", param="input")
        return ChatRequest(
            model=self.model, messages=messages, seed=self.seed, reasoner=self.reasoner,
            reasoning_effort=self.reasoning.effort, max_completion_tokens=self.max_output_tokens, max_tokens=None,
        )  # fmt: skip


def _message(item: dict[str, Any]) -> Message:
    content = item.get("content")
    if item.get("type", "message") != "message" or not isinstance(content, str | list):
        kind = item.get("type", "message")
        raise ApiError(400, f"the search takes messages with content; got an item of type {kind!r}", param="input")
    if isinstance(content, list):
        content = [_part(part) for part in content]
        if all(part["type"] == "text" for part in content):
            content = "".join(part["text"] for part in content)
    try:
        return Message(role=item.get("role", "user"), content=content)
    except ValueError as error:
        raise ApiError(400, f"a message cannot have the role {item.get('role')!r}", param="input") from error


def _part(part: Any) -> dict[str, Any]:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            return {"type": "image_url", "image_url": {"url": url, "detail": part.get("detail") or "auto"}}
    kind = part.get("type") if isinstance(part, dict) else part
    raise ApiError(400, f"a message can hold text and images by their URL; got {kind!r}", param="input")


class Responded:
    """The reply to one request (`reply.Form`): a reasoning item with the search's story, then the message."""

    def __init__(self, model: str) -> None:
        name = uuid.uuid4().hex
        self._reasoning, self._message = f"rs_{name}", f"msg_{name}"
        self._head = {
            "id": f"resp_{name}", "object": "response", "created_at": int(time.time()), "model": model, "error": None,
            "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": False,
            "tool_choice": "none", "tools": [], "temperature": None, "top_p": None, "store": False,
        }  # fmt: skip
        self._story = ""
        self._count = 0
        self.live: str | None = None

    def whole(self, result: Result) -> dict[str, Any]:
        cut = finish_reason(result) == "length"
        return {
            **self._head, "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._thought(self._story or result.text), self._said(answer_text(result))],
            "usage": _usage(result), "reasoner": details(result, self.live),
        }  # fmt: skip

    def begins(self) -> Iterator[str]:
        begun = {**self._head, "status": "in_progress", "output": []}
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        item = {**self._thought(""), "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._summary("response.reasoning_summary_part.added", part={"type": "summary_text", "text": ""})

    def goes_on(self, text: str) -> Iterator[str]:
        self._story += text
        yield self._summary("response.reasoning_summary_text.delta", delta=text)

    def ends(self, result: Result) -> Iterator[str]:
        story, answer = self._story, answer_text(result)
        yield self._summary("response.reasoning_summary_text.done", text=story)
        yield self._summary("response.reasoning_summary_part.done", part={"type": "summary_text", "text": story})
        yield self._event("response.output_item.done", output_index=0, item=self._thought(story))
        message = self._said(answer)
        yield self._event(
            "response.output_item.added", output_index=1, item={**message, "content": [], "status": "in_progress"}
        )
        yield self._content("response.content_part.added", part=_output_text(""))
        yield self._content("response.output_text.delta", delta=answer, logprobs=[])
        yield self._content("response.output_text.done", text=answer, logprobs=[])
        yield self._content("response.content_part.done", part=_output_text(answer))
        yield self._event("response.output_item.done", output_index=1, item=message)
        whole = self.whole(result)
        yield self._event(f"response.{whole['status']}", response=whole)

    def fails(self, error: ApiError) -> Iterator[str]:
        why = {"code": "server_error", "message": error.detail}
        failed = {**self._head, "status": "failed", "error": why, "output": [self._thought(self._story)]}
        yield self._event("response.failed", response=failed)

    def _thought(self, text: str) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": text}] if text else []
        return {"id": self._reasoning, "type": "reasoning", "status": "completed", "summary": summary}

    def _said(self, text: str) -> dict[str, Any]:
        said = {"id": self._message, "type": "message", "role": "assistant", "status": "completed"}
        return {**said, "content": [_output_text(text)]}

    def _summary(self, kind: str, **fields: Any) -> str:
        return self._event(kind, item_id=self._reasoning, output_index=0, summary_index=0, **fields)

    def _content(self, kind: str, **fields: Any) -> str:
        return self._event(kind, item_id=self._message, output_index=1, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> str:
        self._count += 1
        return event({"type": kind, "sequence_number": self._count - 1, **fields}, kind)


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(result: Result) -> dict[str, Any]:
    spent = usage_data(result)
    return {
        "input_tokens": spent["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": spent["completion_tokens"],
        "output_tokens_details": spent["completion_tokens_details"],
        "total_tokens": spent["total_tokens"],
    }
