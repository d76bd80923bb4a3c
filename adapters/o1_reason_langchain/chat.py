"""`Chat` over a LangChain chat model."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from o1_reason.chat import (
    Finish,
    Message,
    Reply,
    Sampling,
    covering,
    find_stop,
    prompt_bytes,
    response_format,
    without_echo,
)
from o1_reason.errors import ConfigurationError, ModelError
from o1_reason.limits import limit_of
from o1_reason.mdp import ToolCall, Usage
from o1_reason.receipt import Tally, take_call
from o1_reason.turns import bound_tools

Prefix = Literal["none", "trailing", "continue"]
_FINISH: Mapping[str, Finish] = {
    "length": "length", "max_tokens": "length", "content_filter": "filter", "refusal": "filter", "SAFETY": "filter",
}  # fmt: skip


class LangChainChat:
    """A `BaseChatModel` behind the search.

    Every reply is a call of its own: LangChain has no common way to ask for several. Its response cache is passed by
    (``cache=False``): it would give all samples the same text. Calls are tagged "nostream", so that candidates do not
    mix with the tokens that a graph streams, and run with the callbacks of the run around them, so that a tracer shows
    one tree. What the model itself has no field for (seed, logprobs ...) is not passed to it.

    concurrency  calls in flight at most, shared by all that use this model of this provider in the process
    prefix       "trailing" if the model goes on with a last message of the assistant's (Anthropic, llama.cpp);
                 "continue" for ChatOpenAI on vLLM or SGLang; "none": the search goes turn by turn
    """

    def __init__(self, model: BaseChatModel, *, prefix: str = "none", concurrency: int = 64) -> None:
        if not isinstance(model, BaseChatModel):
            raise ConfigurationError(f"LangChainChat takes a BaseChatModel; got {type(model).__name__}")
        if prefix not in get_args(Prefix):
            raise ConfigurationError(f"prefix must be one of {', '.join(get_args(Prefix))}; got {prefix!r}")
        self.model = model.model_copy(update={"cache": False})
        if concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1; got {concurrency}")
        self.prefix = prefix
        self.limit = limit_of(self.identity, "", concurrency)
        self._ratio = 0.0  # prompt tokens per byte, the most so far

    @property
    def identity(self) -> str:
        known = self.model._get_ls_params()  # provider, model, temperature ...
        described = ", ".join(f"{name}={value}" for name, value in sorted(known.items()))
        base_url = getattr(self.model, "openai_api_base", None) or getattr(self.model, "base_url", None)
        return f"langchain({type(self.model).__name__}, {described}, {base_url}, {self.prefix})"

    def bound(self, messages: Sequence[Message], sampling: Sampling, prefix: str | None = None) -> Usage:
        """A call for each reply; prompt tokens by the most tokens per byte so far, at first a token for each byte."""
        prompt = round(prompt_bytes(messages, prefix, sampling.tools) * (self._ratio * 1.05 or 1.0))
        return Usage(sampling.n, sampling.n * prompt, sampling.n * (sampling.max_tokens or 0))

    async def continues(self) -> bool:
        return self.prefix != "none"

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        prefix: str | None = None,
    ) -> tuple[list[Reply], Usage]:
        """Up to `sampling.n` replies. Of several calls those that failed are left out, unless all did."""
        if sampling.temperature == 0:  # all would be the same
            sampling = replace(sampling, n=1)
        shown = list(messages)
        if prefix:
            shown.append({"role": "assistant", "content": prefix})
        history = convert_to_messages(shown)
        tally = Tally()
        calls = (self._one(history, sampling, i, prefix, tally) for i in range(sampling.n))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        if not replies:
            raise _explained(next(o for o in outcomes if isinstance(o, BaseException)))
        read = tally.usage.prompt_tokens / len(replies)
        self._ratio = max(self._ratio, read / prompt_bytes(messages, prefix, sampling.tools))
        return replies, tally.usage

    async def _one(
        self, history: Sequence[BaseMessage], sampling: Sampling, i: int, prefix: str | None, tally: Tally
    ) -> Reply:
        epoch = await self.limit.acquire()
        try:
            take_call()
            tally.add(Usage(calls=1))
            message = await self._call(history, self._options(sampling, i, bool(prefix)))
        except Exception as error:
            if getattr(error, "status_code", None) == 429:
                self.limit.refused(epoch, None)
            raise
        finally:
            self.limit.release()
        self.limit.succeeded()
        usage = _usage(message)
        tally.add(usage)
        return _reply(message, sampling, usage, prefix if self.prefix == "trailing" else None)

    async def _call(self, history: Sequence[BaseMessage], options: dict[str, Any]) -> AIMessage:
        config: RunnableConfig = ensure_config()  # the callbacks of the run that this call is part of
        config = {**config, "tags": [*(config.get("tags") or []), "nostream"], "run_name": "o1-reason call"}
        return await self.model.ainvoke(list(history), config, **options)

    def _options(self, sampling: Sampling, i: int, continuing: bool) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": None if sampling.seed is None else (sampling.seed + i) & 0x7FFFFFFF,
            "logprobs": True if sampling.logprobs or sampling.top_logprobs else None,
            "top_logprobs": sampling.top_logprobs or None,
        }
        fields = type(self.model).model_fields
        options = {name: value for name, value in wanted.items() if name in fields and value is not None}
        if sampling.stop:
            options["stop"] = list(sampling.stop)
        if self.prefix == "continue" and continuing:
            options["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        if sampling.schema is not None and "model_kwargs" in fields:
            options["response_format"] = response_format(sampling.schema)
        if sampling.tools:
            options |= bound_tools(self.model, [dict(tool) for tool in sampling.tools], None)
        return options


def _usage(message: AIMessage) -> Usage:
    told = message.usage_metadata
    return Usage(0, told["input_tokens"], told["output_tokens"]) if told else Usage()


def _reply(message: AIMessage, sampling: Sampling, usage: Usage, start: str | None) -> Reply:
    text = without_echo(str(message.text), start)
    at = find_stop(text, sampling.stop)
    told = message.response_metadata
    reason = str(told.get("finish_reason") or told.get("stop_reason") or told.get("done_reason") or "")
    finish = _FINISH.get(reason, "unknown" if sampling.stop else "end")
    if at is not None:
        text, finish = text[:at], "stop"
    logprobs = [entry for entry in (told.get("logprobs") or {}).get("content") or () if entry]
    used = logprobs[: covering((entry["token"] for entry in logprobs), text)]
    tops = tuple(
        {top["token"]: top["logprob"] for top in (*(entry.get("top_logprobs") or ()), entry)} for entry in used
    )
    mean = sum(entry["logprob"] for entry in used) / len(used) if used else None
    alternatives = tops if sampling.top_logprobs else ()
    return Reply(text, finish, usage.completion_tokens, mean, alternatives, calls=_calls(message))


def _calls(message: AIMessage) -> tuple[ToolCall, ...]:
    """Tool calls, those included whose arguments are not JSON."""
    good = [ToolCall(call["name"], json.dumps(call["args"]), call["id"] or "") for call in message.tool_calls]
    bad = [ToolCall(call["name"] or "", call["args"] or "", call["id"] or "") for call in message.invalid_tool_calls]
    return (*good, *bad)


def _explained(error: BaseException) -> BaseException:
    """LangChain's models raise their own SDKs' errors; those that no retry can help end the search."""
    if not isinstance(error, Exception):
        return error
    status = getattr(error, "status_code", None)
    if status in (400, 401, 403, 404, 422):
        wrapped: Exception = ConfigurationError(f"the model refused the call ({type(error).__name__}): {error}")
    else:
        wrapped = ModelError(f"the model failed ({type(error).__name__}): {error}")
    wrapped.__cause__ = error
    return wrapped
