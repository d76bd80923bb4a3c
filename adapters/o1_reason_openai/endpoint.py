"""One OpenAI-compatible endpoint: requests that are limited, retried in one place, hedged, paid for and explained.

The SDK's own retries are off, so nothing is retried twice. What is worth a retry is told by the SDK's exception types;
how long to wait by the server's Retry-After, or else by exponential back-off with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import openai
from openai import AsyncOpenAI, AsyncStream
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_any, stop_before_delay
from tenacity.stop import stop_base
from tenacity.wait import wait_base, wait_random_exponential

from o1_reason.errors import ConfigurationError, ModelError
from o1_reason.limits import limit_of
from o1_reason.mdp import Usage
from o1_reason.receipt import Tally, more_calls, seconds_left, take_call

OPENAI = "https://api.openai.com/v1"
T = TypeVar("T")
_CALL = Usage(calls=1)


class MalformedError(Exception):
    """A reply with status 200 that is none: cut off, no JSON, or without what it must hold."""


# Connections belong to an event loop: kept open across searches, closed when it ends.
_OPEN: dict[tuple[Any, ...], tuple[AsyncOpenAI, AsyncGenerator[None]]] = {}


async def _closing(place: tuple[Any, ...], client: AsyncOpenAI, ours: bool) -> AsyncGenerator[None]:
    """Ends when the loop shuts its asynchronous generators down, as `asyncio.run` does, and closes the client."""
    try:
        yield
    finally:
        _OPEN.pop(place, None)
        if ours:
            await client.close()


class Endpoint:
    """A server. Equal base URLs and keys share one concurrency limit, whoever holds the object.

    base_url     None: OPENAI_BASE_URL, or else OpenAI's own
    api_key      None: OPENAI_API_KEY; a server on another base URL may need none
    attempts     of a request, the first included
    patience     seconds that a request may take with all its retries; a search's deadline shortens it
    timeout      seconds of one attempt
    idle         seconds that a server may be silent
    concurrency  requests in flight at most, adapted downward while the server answers 429
    hedge        seconds after which a request that has not ended is sent once more, and the faster one counts;
                 None: never. The loser is cancelled and paid for.
    headers      sent along with every request
    client       an `AsyncOpenAI` of your own; its retries are switched off
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        attempts: int = 5,
        patience: float = 120.0,
        timeout: float = 600.0,
        idle: float = 120.0,
        concurrency: int = 64,
        hedge: float | None = None,
        headers: Mapping[str, str] | None = None,
        client: AsyncOpenAI | None = None,
    ) -> None:
        if client is not None:
            base_url, api_key = str(client.base_url), client.api_key
        self.base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigurationError(f"base_url must begin with http:// or https://; got {self.base_url!r}")
        key = api_key or os.environ.get("OPENAI_API_KEY") or ("" if self.base_url == OPENAI else "none")
        if not key:
            raise ConfigurationError(
                "no API key: set OPENAI_API_KEY, or give base_url=... for another server "
                '("openai:MODEL?base_url=http://127.0.0.1:8000/v1" in a name)'
            )
        if not (attempts >= 1 and concurrency >= 1 and min(patience, timeout, idle) > 0):
            raise ConfigurationError("attempts and concurrency must be at least 1, all times more than 0 seconds")
        if hedge is not None and not hedge > 0:
            raise ConfigurationError(f"hedge must be more than 0 seconds, or None; got {hedge}")
        self.attempts, self.patience, self.timeout, self.idle, self.hedge = attempts, patience, timeout, idle, hedge
        self._key, self._headers, self._given = key, dict(headers or {}), client
        self.limit = limit_of(self.base_url, key, concurrency)
        self._worked: set[str] = set()  # paths that have served a request

    @property
    def identity(self) -> str:
        """The base URL, for the ledger."""
        return self.base_url

    def url(self, path: str) -> str:
        """`path` "/pooling" is the server's, "decisions" is relative to the base URL."""
        if path.startswith("/"):
            return self.base_url.removesuffix("/v1") + path
        return path

    def worked(self, path: str) -> bool:
        """Whether the endpoint has served a request there."""
        return path in self._worked

    async def post(self, path: str, body: Mapping[str, Any], tally: Tally | None = None) -> Any:
        """The JSON reply to a POST (`url` says where). Each attempt counts as a call.

        Raises ConfigurationError for what can never work, ModelError for what did not work.
        """

        async def send(client: AsyncOpenAI) -> Any:
            return await self.json(client, path, body)

        return await self.request(path, send, tally or Tally())

    async def json(self, client: AsyncOpenAI, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON reply of one attempt."""
        try:
            reply = await client.post(self.url(path), cast_to=object, body=dict(body))
        except ValueError as error:  # the SDK reads the body with the json module
            raise MalformedError(f"the reply is no JSON: {error}") from error
        if not isinstance(reply, dict | list):
            raise MalformedError(f"the reply is no JSON: {str(reply)[:200]!r}")
        return reply

    async def chunks(self, client: AsyncOpenAI, path: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Server-sent events of one attempt, as they come; leaving the loop ends the request."""
        stream: AsyncStream[Any] = await client.post(
            self.url(path), cast_to=object, body={**body, "stream": True}, stream=True, stream_cls=AsyncStream[object]
        )
        try:
            async for chunk in stream:
                if isinstance(chunk, dict):
                    yield chunk
        except ValueError as error:
            raise MalformedError(f"an event is no JSON: {error}") from error
        finally:
            await stream.close()

    async def request(self, path: str, send: Callable[[AsyncOpenAI], Awaitable[T]], tally: Tally) -> T:
        """What `send(client)` returns, which makes one attempt."""
        left = seconds_left()
        patience = self.patience if left is None else max(0.0, min(self.patience, left))
        retrying = AsyncRetrying(
            stop=stop_any(stop_after_attempt(self.attempts), stop_before_delay(patience), _Unaffordable()),
            wait=_Wait(),
            retry=retry_if_exception(worth_retrying),
            reraise=True,
        )
        try:
            result = await retrying(self._hedged if self.hedge else self._attempt, send, tally)
        except (openai.OpenAIError, MalformedError) as error:
            raise self._explained(error, path) from error
        self._worked.add(path)
        return result

    async def _attempt(self, send: Callable[[AsyncOpenAI], Awaitable[T]], tally: Tally) -> T:
        epoch = await self.limit.acquire()
        try:
            take_call()
            tally.add(_CALL)
            async with asyncio.timeout(self.timeout):
                result = await send(await self.client())
        except openai.RateLimitError as error:
            if worth_retrying(error):
                self.limit.refused(epoch, retry_after(error))
            raise
        except TimeoutError as error:
            raise MalformedError(f"no complete reply within {self.timeout:g} seconds") from error
        finally:
            self.limit.release()
        self.limit.succeeded()
        return result

    async def _hedged(self, send: Callable[[AsyncOpenAI], Awaitable[T]], tally: Tally) -> T:
        """A second request after `hedge` seconds; the first to succeed counts (Dean and Barroso 2013)."""
        running = {asyncio.ensure_future(self._attempt(send, tally))}
        try:
            done, _ = await asyncio.wait(running, timeout=self.hedge)
            if not done and more_calls(1):
                running.add(asyncio.ensure_future(self._attempt(send, tally)))
            while True:
                done, pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                winner = next((task for task in done if task.exception() is None), None)
                if winner is not None or not pending:
                    return (winner or next(iter(done))).result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def client(self) -> AsyncOpenAI:
        """The SDK's client on this event loop, shared by equal endpoints; it is closed with the loop."""
        known = _OPEN.get(self._place())
        if known is not None:
            return known[0]
        if self._given is not None:
            client = self._given.with_options(max_retries=0)
        else:
            client = AsyncOpenAI(
                base_url=self.base_url, api_key=self._key, max_retries=0, timeout=self.idle,
                default_headers=self._headers,
            )  # fmt: skip
        closing = _closing(self._place(), client, self._given is None)
        _OPEN[self._place()] = client, closing
        await anext(closing)
        return client

    def _place(self) -> tuple[Any, ...]:
        loop = asyncio.get_running_loop()
        return loop, self.base_url, self._key, self.idle, tuple(sorted(self._headers.items())), id(self._given)

    async def close(self) -> None:
        """Close the connections of this event loop; a later call opens new ones."""
        known = _OPEN.get(self._place())
        if known is not None:
            await known[1].aclose()

    def _explained(self, error: Exception, path: str) -> Exception:
        where = f"{self.base_url} ({path.lstrip('/')})"
        if isinstance(error, MalformedError):
            return ModelError(f"{where}: {error}")
        if not isinstance(error, openai.APIStatusError):
            if isinstance(error, openai.APIConnectionError):
                cause = error.__cause__
                detail = f"{type(cause).__name__}: {cause}" if cause else str(error)
                return ModelError(f"{where} cannot be reached ({detail}); is the server running, and the URL right?")
            return ModelError(f"{where} failed: {error}")
        said = f"{where} answered {error.status_code}: {_said(error)}"
        match error.status_code:
            case 401 | 403:
                return ConfigurationError(f"{said}. The key may not do this: check OPENAI_API_KEY or api_key=...")
            case 404 | 405:
                return ConfigurationError(f"{said}. Check the model's name and base_url (most end with /v1)")
            case 429 if error.code == "insufficient_quota":
                return ConfigurationError(f"{said}. The account has no credit left: waiting will not help")
            case 400 | 422 if path not in self._worked:
                return ConfigurationError(f"{said}. The request does not suit this server or model")
        return ModelError(said)


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, Mapping) and isinstance(body.get("message"), str):
        return body["message"][:500]
    return str(body if body is not None else error.message)[:500]


def worth_retrying(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, MalformedError | openai.APIConnectionError):
        return True
    if isinstance(error, openai.APIStatusError):
        told = error.response.headers.get("x-should-retry")
        if told in ("true", "false"):
            return told == "true"
        if error.code == "insufficient_quota" or error.status_code == 501:
            return False
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIError) and not isinstance(error, openai.APIResponseValidationError)


def retry_after(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3; milliseconds as OpenAI sends them)."""
    headers = error.response.headers if isinstance(error, openai.APIStatusError) else {}
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        if seconds >= 0:
            return seconds
    return None


class _Wait(wait_base):
    """What the server asks for, or else full jitter: uniform in [0, min(20 s, 0.5 s * 2^k)] after attempt k."""

    _jitter = wait_random_exponential(multiplier=0.5, max=20.0)

    def __call__(self, retry_state: RetryCallState) -> float:
        outcome = retry_state.outcome
        asked = retry_after(outcome.exception()) if outcome is not None else None
        return self._jitter(retry_state) if asked is None else asked


class _Unaffordable(stop_base):
    """Stop where the budget has no call left for another attempt."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        return not more_calls(1)
