"""`Chat` over an OpenAI-compatible server: chat completions, or raw completions of a rendered conversation."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import openai
from openai import AsyncOpenAI

from o1_reason.chat import Message, Reply, Sampling, find_stop, prompt_bytes, response_format
from o1_reason.errors import ConfigurationError, ModelError
from o1_reason.mdp import Usage
from o1_reason.receipt import Tally, more_calls

from .endpoint import Endpoint, MalformedError
from .probe import Heard, Prefix, find_prefix, started
from .render import Renderer, Template
from .wire import Answer, Choice, Price, usage_of

PROBES = 4  # requests of a probe, at the most
PREFIXES = ("auto", *get_args(Prefix))


class OpenAIChat:
    """A model behind an `Endpoint`.

    prefix    how the server continues the assistant's text:
              "continue"  vLLM, SGLang: `continue_final_message`
              "prefix"    DeepSeek, Mistral: ``"prefix": true`` in the message
              "trailing"  llama.cpp and others: the last message, if it is the assistant's, is continued
              "raw"       raw completions of the conversation, rendered by `template` or by the server
              "none"      not at all
              "auto"      a probe finds out, when it is first asked for; "raw" where a template is given
    template  the conversation as text for raw completions: a function of the messages, or "plain" (their contents, a
              line each); None: the server renders it (llama.cpp, vLLM)
    n         whether one request may ask for several replies; None: until the server ignores it
    stream    None: until a stream brings no usage. Streaming ends a reply at a stop string that the server ignores,
              and tells what a cancelled request has cost
    without   optional fields that the server must not be sent: stop, seed, logprobs, prompt_cache_key ...
    extra     further fields of each request: reasoning_effort, top_p, min_p, tools ...
    price     for `Usage.cost_usd`; None: unknown

    What a server refuses among the optional fields is left out from then on. Raises ConfigurationError for settings
    that cannot work.
    """

    def __init__(
        self,
        model: str,
        endpoint: Endpoint | None = None,
        *,
        prefix: str = "auto",
        template: Template | str | None = None,
        n: bool | None = None,
        stream: bool | None = None,
        without: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
        price: Price | None = None,
    ) -> None:
        if not model:
            raise ConfigurationError('which model? For example "openai:gpt-5-mini"')
        if prefix not in PREFIXES:
            raise ConfigurationError(f"prefix must be one of {', '.join(PREFIXES)}; got {prefix!r}")
        self.model = model
        self.endpoint = endpoint or Endpoint()
        self.prefix = "raw" if prefix == "auto" and template is not None else prefix
        self._asked = self.prefix
        self.extra = dict(extra or {})
        self.price = price
        self.cached_tokens = 0  # of all prompts so far, as the server tells
        self._n, self._stream = n, stream
        self._render = Renderer(self.endpoint, model, template)
        self._refused = {without} if isinstance(without, str) else set(without)  # optional fields not to be sent
        self._trims = False  # the server loses white space at the end of a message that it continues
        self._ratio = 0.0  # prompt tokens per byte, the most so far
        self._probing: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    @property
    def identity(self) -> str:
        settings = (self._asked, self._render.name, json.dumps(self.extra, sort_keys=True))
        return f"openai({self.endpoint.identity}, {self.model}, {', '.join(settings)})"

    def bound(self, messages: Sequence[Message], sampling: Sampling, prefix: str | None = None) -> Usage:
        """One request for all replies, unless the server is known to give one a request. Prompt tokens are estimated:
        by the most tokens per byte that this model has needed so far, a token for each byte before that."""
        requests = sampling.n if self._n is False else 1
        prompt = requests * self._estimate(messages, prefix, sampling.tools, self._ratio * 1.05 or 1.0)
        usage = usage_of(prompt, sampling.n * (sampling.max_tokens or 0), 0, self.price)
        return replace(usage, calls=requests)

    async def continues(self) -> bool:
        """Asks the server, with up to four requests of one token, unless it is known already."""
        if self.prefix == "auto":
            tally = Tally()
            async with self._lock():
                if self.prefix == "auto" and more_calls(PROBES):
                    await self._probe(tally)
        return self.prefix not in ("none", "auto")

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        prefix: str | None = None,
    ) -> tuple[list[Reply], Usage]:
        """Up to `sampling.n` replies, in one request where the server takes `n`. Where it does not, the first request
        goes ahead alone until its first token, so that the others find the prompt in the cache. Of several requests
        those that failed are left out, unless all did. At temperature 0 there is one reply."""
        if sampling.temperature == 0:  # all would be the same
            sampling = replace(sampling, n=1)
        tally = Tally()
        replies: list[Reply] = []
        if self._n is not False or sampling.n == 1:
            replies = await self._request(messages, sampling, prefix, tally)
            if len(replies) < sampling.n:
                self._n = False
        if len(replies) < sampling.n:
            try:
                rest = range(len(replies), sampling.n)
                replies += await self._singly(messages, sampling, prefix, tally, rest, warm=bool(replies))
            except ModelError:
                if not replies:
                    raise
        return replies, tally.usage

    async def _singly(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        prefix: str | None,
        tally: Tally,
        which: range,
        warm: bool,
    ) -> list[Reply]:
        """The replies numbered `which`, a request each."""
        begun = asyncio.Event()
        if warm:
            begun.set()

        async def one(i: int) -> list[Reply]:
            seed = None if sampling.seed is None else sampling.seed + i
            alone = replace(sampling, n=1, seed=seed)
            if i != which[0]:
                await begun.wait()
            try:
                return await self._request(messages, alone, prefix, tally, begun.set)
            finally:
                begun.set()

        outcomes = await asyncio.gather(*(one(i) for i in which), return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        hopeless = next((error for error in failed if not isinstance(error, ModelError)), None)
        if hopeless is not None or len(failed) == len(outcomes):
            raise hopeless or failed[0]
        return [reply for outcome in outcomes if not isinstance(outcome, BaseException) for reply in outcome]

    # One request.

    async def _request(
        self, messages: Sequence[Message], sampling: Sampling, prefix: str | None, tally: Tally,
        begun: Callable[[], None] = lambda: None,
    ) -> list[Reply]:  # fmt: skip
        """Sent again without the fields that the server refuses by a 400 or 422."""
        path, fixed = await self._addressed(messages, prefix, sampling.tools, tally)
        lenient = self._trims and bool(prefix)
        while True:
            optional = {k: v for k, v in self._optional(sampling, lenient).items() if k not in self._refused}
            prompt = self._estimate(messages, prefix, sampling.tools, self._ratio or 0.3)

            async def send(client: AsyncOpenAI, body: dict[str, Any] = {**fixed, **optional}) -> Answer:  # noqa: B006
                return await self._send(client, path, body, sampling, prompt, tally, begun)  # noqa: B023

            try:
                answer = await self.endpoint.request(path, send, tally)
                break
            except (ConfigurationError, ModelError) as error:
                refused = self._blamed(error.__cause__, optional, path)
                if not refused or not more_calls(1):
                    raise
                self._refused |= refused
        self._learn(prompt_bytes(messages, prefix, sampling.tools), answer)
        shares = answer.shares()
        start = prefix if self.prefix == "trailing" else None
        replies = [
            choice.reply(sampling.stop, start, share)
            for (_, choice), share in zip(sorted(answer.choices.items()), shares, strict=True)
        ]
        return replies[: sampling.n]

    async def _send(
        self, client: AsyncOpenAI, path: str, body: dict[str, Any], sampling: Sampling, prompt: int, tally: Tally,
        begun: Callable[[], None],
    ) -> Answer:  # fmt: skip
        """One attempt. What it cost is charged also if it breaks off or is cancelled: then the server may well have
        read the prompt, of about `prompt` tokens."""
        answer = Answer()
        try:
            if self._stream is False:
                body.pop("stream_options", None)
                answer.take(await self.endpoint.json(client, path, body))
            else:
                await self._receive(client, path, body, sampling, answer, begun)
        except (asyncio.CancelledError, openai.APITimeoutError):
            self._charge(answer, prompt, tally)
            raise
        except Exception:
            if answer.choices:
                self._charge(answer, prompt, tally)
            raise
        self._charge(answer, prompt, tally)
        if not answer.choices:
            raise MalformedError("the reply holds no choices")
        if not answer.complete and not self._past_stop(answer, sampling):
            raise MalformedError("the reply broke off before its end")
        return answer

    async def _receive(
        self, client: AsyncOpenAI, path: str, body: dict[str, Any], sampling: Sampling, answer: Answer,
        begun: Callable[[], None],
    ) -> None:  # fmt: skip
        """The chunks of a stream, to its end or to where the server goes on past a stop string."""
        met = 0  # characters at the time when all replies had met a stop string
        async for chunk in self.endpoint.chunks(client, path, body):
            answer.take(chunk)
            begun()
            if met and answer.size() > met:  # it does not heed the stop string; one that does may yet send usage
                break
            if not met and self._past_stop(answer, sampling):
                met = answer.size()

    def _past_stop(self, answer: Answer, sampling: Sampling) -> bool:
        """All replies have met a stop string. An echo may hold some, so where there is one the server has to tell."""
        if not sampling.stop or len(answer.choices) < sampling.n or self.prefix == "trailing":
            return False
        return all(find_stop(choice.text, sampling.stop) is not None for choice in answer.choices.values())

    def _charge(self, answer: Answer, prompt: int, tally: Tally) -> None:
        cached = answer.cached_tokens()
        self.cached_tokens += cached
        tally.add(usage_of(answer.prompt_tokens() or prompt, answer.generated(), cached, self.price))

    def _learn(self, size: int, answer: Answer) -> None:
        if not answer.counted and self._stream is None and answer.complete:
            self._stream = False  # without a stream there may be usage
        self._ratio = max(self._ratio, answer.prompt_tokens() / size)

    def _estimate(self, messages: Sequence[Message], prefix: str | None, tools: Sequence[Any], ratio: float) -> int:
        return max(1, round(ratio * prompt_bytes(messages, prefix, tools)))

    async def _addressed(
        self, messages: Sequence[Message], prefix: str | None, tools: Sequence[Any], tally: Tally
    ) -> tuple[str, dict[str, Any]]:
        """Where the request goes, and the fields that it cannot do without."""
        fixed: dict[str, Any] = {"model": self.model}
        if tools:
            return "chat/completions", {**fixed, "messages": list(messages), "tools": list(tools), **self.extra}
        if self.prefix == "raw":
            prompt = await self._render(messages, tally)
            return "completions", {**fixed, "prompt": prompt + (prefix or ""), **self._render.fields, **self.extra}
        whole, extra = list(messages), {}
        if prefix:
            last, extra = started(prefix.rstrip() if self._trims else prefix, self.prefix)  # type: ignore[arg-type]
            whole.append(last)
        return "chat/completions", {**fixed, "messages": whole, **extra, **self.extra}

    def _optional(self, sampling: Sampling, lenient: bool) -> dict[str, Any]:
        """Fields that a server may refuse; what is asked for holds all the same, or is done on this side."""
        raw = self.prefix == "raw" and not sampling.tools
        limit = "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"
        fields: dict[str, Any] = {
            limit: sampling.max_tokens,
            "temperature": sampling.temperature,
            "n": sampling.n if sampling.n > 1 else None,
            "stop": list(sampling.stop) if sampling.stop and not lenient else None,
            "seed": None if sampling.seed is None else sampling.seed & 0x7FFFFFFF,
            "prompt_cache_key": sampling.cache_key,
        }
        if sampling.logprobs or sampling.top_logprobs:
            fields["logprobs"] = sampling.top_logprobs if raw else True
            fields["top_logprobs"] = sampling.top_logprobs or None if not raw else None
        if sampling.schema is not None:
            fields["response_format"] = response_format(sampling.schema)
        if self._stream is not False:
            counts = {} if "continuous_usage_stats" in self._refused else {"continuous_usage_stats": True}
            fields["stream_options"] = {"include_usage": True, **counts}
        return {name: value for name, value in fields.items() if value is not None}

    def _blamed(self, error: BaseException | None, optional: Mapping[str, Any], path: str = "") -> set[str]:
        """The optional fields that an error is about: those that a refusal names, or else all of them. An internal
        error is blamed on them if the server has served no request yet: some break on a field that they do not know."""
        sent = {*optional, "continuous_usage_stats"} - self._refused
        everything = sent - {"max_tokens", "max_completion_tokens", "temperature"}
        if not isinstance(error, openai.APIError) or isinstance(error, openai.APIConnectionError):
            return set()
        text = f"{error.param} {error.message} {error.body}"
        found = {name for name in sent if re.search(rf"\b{name}\b", text)}
        if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
            return {"continuous_usage_stats"} if "continuous_usage_stats" in found else found or everything
        if isinstance(error, openai.PermissionDeniedError):  # OpenAI's reasoning models forbid log-probabilities
            return found & everything
        if isinstance(error, openai.APIStatusError) and error.status_code < 500:
            return set()
        return {"response_format"} & sent if self.endpoint.worked(path) else everything

    # Capabilities.

    def _lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._probing is None or self._probing[0] is not loop:
            self._probing = loop, asyncio.Lock()
        return self._probing[1]

    async def _probe(self, tally: Tally) -> None:
        async def ask(messages: Sequence[Message], extra: Mapping[str, Any]) -> Heard | None:
            body = {"model": self.model, "messages": list(messages), **extra, **self.extra}
            limit = "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"
            try:
                reply = await self.endpoint.post("chat/completions", {**body, limit: 1}, tally)
            except (ConfigurationError, ModelError) as error:
                cause = error.__cause__
                if not isinstance(cause, openai.BadRequestError | openai.UnprocessableEntityError):
                    raise
                if limit == "max_tokens" and "max_tokens" in self._blamed(cause, {"max_tokens": 1}):
                    self._refused.add("max_tokens")
                    return await ask(messages, extra)
                return None
            answer = Answer()
            answer.take(reply)
            self._charge(answer, 0, tally)
            text = next(iter(answer.choices.values()), Choice()).text
            return Heard(text, answer.prompt_tokens() or None)

        found, self._trims = await find_prefix(ask)
        if found == "none" and await self._render.possible(tally):
            found = "raw"
        self.prefix = found
