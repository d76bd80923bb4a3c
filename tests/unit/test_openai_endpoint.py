"""Requests against a server that misbehaves: retried in one place, limited for all, paid for, explained, never hung."""

import asyncio
import gc
import time

import pytest
from o1_reason_openai.endpoint import _OPEN, Endpoint, retry_after
from openai_server import Request, Server

from o1_reason.errors import ConfigurationError, ModelError
from o1_reason.limits import Limit
from o1_reason.mdp import Usage
from o1_reason.receipt import Tally


async def ok(request: Request) -> None:
    await request.reply(200, {"ok": request.path})


def refused(status: int, code: str | None = None, **headers: str):
    async def handler(request: Request) -> None:
        await request.error(status, code, **headers)

    return handler


async def test_paths_are_the_servers_own_or_relative_to_the_base_url():
    async with Server(ok) as server:
        endpoint = Endpoint(server.url, "key")
        assert await endpoint.post("/pooling", {}) == {"ok": "/pooling"}
        assert await endpoint.post("decisions", {}) == {"ok": "/v1/decisions"}
        assert server.requests[0].headers["authorization"] == "Bearer key"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_what_may_pass_is_tried_again_and_each_attempt_is_a_call(status):
    async with Server(ok) as server:
        server.script = [refused(status, retry_after_ms="1"), refused(status, retry_after="0")]
        tally = Tally()
        assert await Endpoint(server.url).post("x", {}, tally)
        assert len(server.requests) == 3 == tally.usage.calls


async def test_a_retry_after_is_waited_for_by_all_callers():
    async with Server(ok) as server:
        server.script = [refused(429, retry_after="0.3")]
        endpoint, other = Endpoint(server.url), Endpoint(server.url)
        started = time.monotonic()
        first = asyncio.ensure_future(endpoint.post("x", {}))
        while not server.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        await other.post("x", {})
        assert time.monotonic() - started >= 0.3
        await first


async def test_a_retry_after_beyond_the_time_that_is_left_ends_the_call_at_once():
    async with Server(refused(429, retry_after="60")) as server:
        started = time.monotonic()
        with pytest.raises(ModelError, match="429"):
            await Endpoint(server.url, patience=5).post("x", {})
        assert len(server.requests) == 1
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("handler", "advice"),
    [
        (refused(401), "OPENAI_API_KEY"),
        (refused(403), "key"),
        (refused(404), "model's name and base_url"),
        (refused(400), "does not suit"),
        (refused(422), "does not suit"),
        (refused(429, "insufficient_quota"), "credit"),
    ],
    ids=["401", "403", "404", "400", "422", "quota"],
)
async def test_what_can_never_work_fails_at_once_and_says_what_to_do(handler, advice):
    async with Server(handler) as server:
        with pytest.raises(ConfigurationError, match=advice):
            await Endpoint(server.url).post("x", {})
        assert len(server.requests) == 1


async def test_a_bad_request_after_good_ones_is_about_that_request_alone():
    async with Server(ok) as server:
        endpoint = Endpoint(server.url)
        await endpoint.post("x", {})
        server.script = [refused(400)]
        with pytest.raises(ModelError, match="told 400"):
            await endpoint.post("x", {})


async def test_the_servers_own_word_on_retries_counts():
    async with Server(ok) as server:
        server.script = [refused(500, x_should_retry="false")]
        with pytest.raises(ModelError):
            await Endpoint(server.url).post("x", {})
        server.script = [refused(400, x_should_retry="true", retry_after_ms="1")]
        assert await Endpoint(server.url).post("x", {})


async def test_a_dead_endpoint_is_an_error_that_names_it():
    async with Server(ok) as server:
        url = server.url
    with pytest.raises(ModelError, match=r"cannot be reached .* is the server running"):
        await Endpoint(url, attempts=2).post("x", {})


@pytest.mark.parametrize("body", [b"{cut off", b"", b"null", b'"text"'], ids=["half", "empty", "null", "text"])
async def test_a_reply_that_is_no_json_object_is_tried_again_and_then_an_error(body):
    async def nonsense(request: Request) -> None:
        await request.reply(200, body)

    async with Server(nonsense) as server:
        with pytest.raises(ModelError, match="no JSON"):
            await Endpoint(server.url, attempts=2).post("x", {})
        assert len(server.requests) == 2


async def silence(request: Request) -> None:
    await asyncio.sleep(3600)


async def drip(request: Request) -> None:
    await request.begin()
    while True:
        await request.event({"choices": []})
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("handler", "setting"), [(silence, {"idle": 0.1}), (drip, {"timeout": 0.15})], ids=["silent", "drip"]
)
async def test_a_server_that_never_ends_its_reply_is_given_up(handler, setting):
    async with Server(handler) as server:
        with pytest.raises(ModelError):
            await Endpoint(server.url, attempts=2, **setting).post("x", {})
        assert len(server.requests) == 2
        while server.gone < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_straggler_is_hedged_and_the_loser_is_cancelled_and_paid():
    async with Server(ok) as server:
        server.script = [silence]
        tally = Tally()
        assert await Endpoint(server.url, hedge=0.05).post("x", {}, tally)
        assert tally.usage == Usage(calls=2)
        while not server.gone:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_hedge_that_fails_leaves_the_first_request_alone():
    async def slow(request: Request) -> None:
        await asyncio.sleep(0.3)
        await ok(request)

    async with Server(ok) as server:
        server.script = [slow, refused(404)]
        assert await Endpoint(server.url, hedge=0.05).post("x", {})


async def test_requests_in_flight_are_limited_for_all_who_use_the_endpoint():
    async def slow(request: Request) -> None:
        await asyncio.sleep(0.02)
        await ok(request)

    async with Server(slow) as server:
        endpoints = [Endpoint(server.url, concurrency=3) for _ in range(4)]
        await asyncio.gather(*(endpoint.post("x", {}) for endpoint in endpoints for _ in range(5)))
        assert len(server.requests) == 20
        assert server.peak == 3


async def test_cancelled_requests_give_their_permits_back():
    async with Server(ok) as server:
        server.script = [silence] * 2
        endpoint = Endpoint(server.url, concurrency=2)
        calls = [asyncio.ensure_future(endpoint.post("x", {})) for _ in range(40)]
        while len(server.requests) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for call in calls:
            call.cancel()
        assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*calls, return_exceptions=True))
        assert endpoint.limit.held == 0
        await asyncio.gather(*(endpoint.post("x", {}) for _ in range(4)))
        assert endpoint.limit.held == 0


async def test_a_permit_that_comes_with_the_cancellation_is_not_lost():
    limit = Limit(1)
    await limit.acquire()
    waiter = asyncio.ensure_future(limit.acquire())
    await asyncio.sleep(0)
    limit.release()  # grants the waiter, whose turn comes in the next pass of the loop
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await asyncio.sleep(0)
    assert limit.held == 0
    await asyncio.wait_for(limit.acquire(), 1)


async def test_the_limit_halves_once_for_requests_that_were_refused_together_and_recovers():
    limit = Limit(16)
    epochs = [await limit.acquire() for _ in range(8)]
    for epoch in epochs:
        limit.refused(epoch, None)
        limit.release()
    assert limit.now == 8
    limit.refused(await limit.acquire(), None)
    assert limit.now == 4
    for _ in range(4):  # a round of successes adds one
        limit.succeeded()
    assert 4.8 < limit.now <= 5
    for _ in range(1000):
        limit.succeeded()
    assert limit.now == 16


def test_permits_pass_between_event_loops():
    limit = Limit(1)
    order: list[str] = []

    async def hold() -> None:
        await limit.acquire()
        order.append("held")
        await asyncio.sleep(0.1)
        order.append("released")
        limit.release()

    async def want() -> None:
        await asyncio.sleep(0.03)
        await limit.acquire()
        order.append("granted")
        limit.release()

    async def both() -> None:
        await asyncio.gather(hold(), asyncio.to_thread(asyncio.run, want()))

    asyncio.run(both())
    assert order == ["held", "released", "granted"]
    assert limit.held == 0


def test_an_endpoint_works_on_one_loop_after_another_and_leaves_no_connection():
    endpoints: list[Endpoint] = []

    async def once() -> None:
        async with Server(ok) as server:
            if not endpoints:
                endpoints.append(Endpoint(server.url))
            endpoints[0].base_url = server.url  # the port differs
            await endpoints[0].post("x", {})

    for _ in range(2):
        asyncio.run(once())
        gc.collect()  # an open connection would be a ResourceWarning, which is an error here
        assert not _OPEN


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read_in_all_its_forms(header, seconds):
    import openai

    async with Server(refused(429, **{name.replace("-", "_"): value for name, value in header.items()})) as server:
        with pytest.raises(ModelError) as raised:
            await Endpoint(server.url, attempts=1).post("x", {})
        cause = raised.value.__cause__
        assert isinstance(cause, openai.RateLimitError)
        assert retry_after(cause) == seconds


async def test_retry_after_may_be_a_date():
    from email.utils import formatdate

    async with Server(refused(503, retry_after=formatdate(time.time() + 90, usegmt=True))) as server:
        with pytest.raises(ModelError) as raised:
            await Endpoint(server.url, attempts=1).post("x", {})
        assert 85 < (retry_after(raised.value.__cause__) or 0) <= 90


@pytest.mark.parametrize(
    "settings", [{"attempts": 0}, {"concurrency": 0}, {"patience": 0}, {"hedge": 0}, {"base_url": "localhost:8000"}]
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError):
        Endpoint(**{"base_url": "http://127.0.0.1:1/v1", **settings})


def test_openai_itself_needs_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        Endpoint()
