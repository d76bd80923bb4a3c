"""Requests, replies and errors as OpenAI's chat completions have them."""

import time
from collections.abc import Container, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ..mdp import Usage
from ..result import Result
from .stream import event

# Fields that are refused unless they say nothing, with what to do instead.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "a search has one answer; for another one, ask again with another seed"),
    "tools": (([],), "the search calls no tools; leave them out"),
    "functions": (([],), "the search calls no functions; leave them out"),
    "tool_choice": (("none", "auto"), "the search calls no tools; leave it out"),
    "function_call": (("none", "auto"), "the search calls no functions; leave it out"),
    "response_format": (({"type": "text"},), "answers are plain text; leave it out"),
    "logprobs": ((False,), "an answer has no log-probabilities; its confidence is in the reply's field reasoner"),
    "top_logprobs": ((0,), "an answer has no log-probabilities; leave it out"),
    "stop": (("", []), "the search finds the end by itself; leave it out"),
    "logit_bias": (({},), "sampling is the model's own; leave it out"),
    "modalities": ((["text"],), "answers are plain text; leave it out"),
    "audio": ((), "answers are plain text; leave it out"),
    "web_search_options": ((), "the search does not look things up; leave it out"),
}

# Fields that change nothing here: how steps are sampled is the strategy's business, the others are about OpenAI's side.
IGNORED = (
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "verbosity", "prediction", "parallel_tool_calls",
    "user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention",
)  # fmt: skip


class ApiError(HTTPException):
    """An error as the client sees it; `headers` go with it."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, **headers: str
    ) -> None:
        super().__init__(status, message, {name.replace("_", "-"): value for name, value in headers.items()} or None)
        self.code, self.param = code, param

    def body(self) -> dict[str, Any]:
        """``{"error": {"message", "type", "param", "code"}}``."""
        return error_body(self.status_code, self.detail, self.code, self.param)

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


def error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def honest(data: Any, refused: Mapping[str, tuple[tuple[Any, ...], str]], ignored: Container[str]) -> Any:
    """The fields of a request that mean something here. Raises ApiError for one that cannot be honoured."""
    if not isinstance(data, dict):
        return data
    given = {name: value for name, value in data.items() if value is not None and name not in ignored}
    for name, (harmless, instead) in refused.items():
        if name in given and given.pop(name) not in harmless:
            raise ApiError(400, f"{name} cannot be honoured: {instead}", code="unsupported_parameter", param=name)
    return given


class Message(BaseModel):
    """A message of the conversation; what else it holds (name, tool calls, ...) is kept."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None

    def plain(self) -> dict[str, Any]:
        """As the models get it; what a model thought aloud in an earlier turn is left out."""
        data = self.model_dump(exclude_unset=True)
        return {name: value for name, value in data.items() if name not in ("reasoning_content", "reasoning")}


class StreamOptions(BaseModel):
    include_usage: bool = False


class Wish(BaseModel):
    """What a request changes of its model: the strategy, settings of it, limits of the budget."""

    model_config = ConfigDict(extra="forbid")

    strategy: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    budget: dict[str, Any] = Field(default_factory=dict)


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``. Fields that nothing honours are refused (ApiError) or in `IGNORED`."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    seed: int | None = None
    reasoning_effort: str | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    reasoner: Wish = Wish()

    @model_validator(mode="before")
    @classmethod
    def _honest(cls, data: Any) -> Any:
        return honest(data, REFUSED, IGNORED)

    @property
    def token_limit(self) -> int | None:
        """The lesser of the two fields that limit tokens."""
        return min((n for n in (self.max_completion_tokens, self.max_tokens) if n is not None), default=None)

    def question(self) -> tuple[str, tuple[dict[str, Any], ...]]:
        """The last user message is the question, the others are its context. Raises ApiError if there is none.

        The question is text; what else its message holds stands right before it.
        """
        last = next((i for i in reversed(range(len(self.messages))) if self.messages[i].role == "user"), None)
        if last is None:
            raise ApiError(400, "messages need one of the user, the question", param="messages")
        context = [message.plain() for i, message in enumerate(self.messages) if i != last]
        content = self.messages[last].content
        if not isinstance(content, list):
            return content or "", tuple(context)
        others = [part for part in content if part.get("type") != "text"]
        if others:
            context.append({"role": "user", "content": others})
        return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text"), tuple(context)


class Completion:
    """The reply to one request of chat completions (`reply.Form`)."""

    def __init__(self, id: str, model: str, include_usage: bool) -> None:
        self._head = {"id": id, "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self.live: str | None = None

    def whole(self, result: Result) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer_text(result), "refusal": None}
        if result.text:
            message["reasoning_content"] = result.text
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(result)}
        return {
            **self._head, "object": "chat.completion", "choices": [choice], "usage": usage_data(result),
            "reasoner": details(result, self.live),
        }  # fmt: skip

    def begins(self) -> Iterator[str]:
        yield event(self._chunk(role="assistant", content=""))

    def goes_on(self, text: str) -> Iterator[str]:
        yield event(self._chunk(reasoning_content=text))

    def ends(self, result: Result) -> Iterator[str]:
        yield event(self._chunk(content=answer_text(result)))
        yield event({**self._chunk(finish_reason(result)), "reasoner": details(result, self.live)})
        if self._include_usage:
            yield event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_data(result)})
        yield "data: [DONE]\n\n"

    def fails(self, error: ApiError) -> Iterator[str]:
        yield event(error.body())

    def _chunk(self, finish: str | None = None, **delta: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def answer_text(result: Result) -> str:
    """What a person is to read; the bare answer, if there is one, also stands in `details`."""
    if result.answered:
        return result.answer or ""
    if result.answer is not None:
        return f"No answer passed the check; the best attempt was {result.answer}"
    return f"No answer was found ({result.stop})."


def finish_reason(result: Result) -> str:
    """ "length": a limit was met before there was any answer."""
    return "length" if result.answer is None and result.stop in ("budget", "deadline") else "stop"


def usage_data(result: Result) -> dict[str, Any]:
    """Policy and verifier together; what the policy generated is reasoning."""
    total: Usage = result.usage
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "total_tokens": total.tokens,
        "completion_tokens_details": {"reasoning_tokens": result.policy_usage.completion_tokens},
    }


def details(result: Result, live: str | None) -> dict[str, Any]:
    """What OpenAI's API has no field for; `live`: where the search can be looked at."""
    return {
        "answer": result.answer,
        "confidence": result.confidence,
        "stop": result.stop,
        "nodes": len(result.tree) - 1,
        "policy": result.policy_usage.to_data(),
        "verifier": result.verifier_usage.to_data(),
        "ranking": [list(entry) for entry in result.ranking],
        **({} if live is None else {"live": live}),
    }
