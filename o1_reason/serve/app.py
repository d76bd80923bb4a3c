"""The ASGI application: routes, who may ask, and how much at once."""

import hmac
import ipaddress
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ConfigurationError
from ..ledger import resolve_ledger
from .desk import Desk, Job
from .metrics import Metrics
from .models import Model, strategy_for, within
from .reply import ChatReply
from .wire import ApiError, ChatRequest, error_body

OPEN = ("/health",)  # asked for by load balancers, which have no key


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a server.

    keys          API keys, one of which a request must carry; none: none is asked for, and requests that name another
                  host than this machine are refused
    searches      at once
    queue         searches more that may wait for a place; beyond them 429
    body_bytes    most bytes of a request's body
    cors_origins  web pages that may call from a browser; none: none may
    """

    keys: tuple[str, ...] = ()
    searches: int = 8
    queue: int = 64
    body_bytes: int = 1 << 20
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.searches < 1 or self.queue < 0 or self.body_bytes < 1:
            raise ConfigurationError("a server needs room for a search, a queue of 0 or more, and a body of a byte")
        if any(not key.strip() for key in self.keys):
            raise ConfigurationError("an API key is empty; leave it out, or give one that nobody guesses")
        if "*" in self.cors_origins:
            raise ConfigurationError("name the web origins that may call, such as https://chat.example.org; * is all")


def create_app(models: Sequence[Model], settings: Settings, *, seed: int = 0, ledger: Any = None) -> FastAPI:
    """The application that serves `models`; its `state.desk` holds the searches.

    Raises ConfigurationError for no model, or two of one name.
    """
    served = {model.id: model for model in models}
    if not served or len(served) < len(models):
        raise ConfigurationError("a server needs a model, and each under a name of its own")
    desk = Desk(settings.searches, settings.queue, resolve_ledger(ledger))
    app = FastAPI(openapi_url=None, lifespan=_lifespan)
    app.state.desk = desk
    _add_routes(app, desk, served, seed)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(RequestValidationError, _explain_validation)
    app.add_middleware(Gate, settings=settings, metrics=desk.metrics)
    if settings.cors_origins:  # outermost: a browser's preflight carries no key
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"], expose_headers=["retry-after", "x-request-id"],
        )  # fmt: skip
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    desk: Desk = app.state.desk
    await desk.cancel()
    if desk.ledger is not None:
        await desk.ledger.close()


def _add_routes(app: FastAPI, desk: Desk, served: dict[str, Model], seed: int) -> None:
    def known(id: str) -> Model:
        if id not in served:
            message = f"there is no model {id!r} here; there are: {', '.join(served)}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return served[id]

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        job = _job(known(body.model), body, seed)
        return ChatReply(desk, job, request.state.id, body.stream, body.stream_options.include_usage)

    @app.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [_card(id) for id in served]}

    @app.get("/v1/models/{id:path}")
    async def model(id: str) -> Any:
        return _card(known(id).id)

    @app.get("/health")
    async def health() -> Response:
        status = "closing" if desk.closing else "ok"
        body = {"status": status, "running": desk.running, "waiting": desk.waiting}
        return JSONResponse(body, 503 if desk.closing else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(desk.page(), media_type="text/plain; version=0.0.4")


def _card(id: str) -> dict[str, Any]:
    return {"id": id, "object": "model", "created": 0, "owned_by": "o1-reason"}


def _job(model: Model, body: ChatRequest, seed: int) -> Job:
    """Raises ApiError for wishes that cannot be met."""
    question, context = body.question()
    if not question.strip():
        raise ApiError(400, "the question, the last message of the user, has no text", param="messages")
    wish = body.reasoner
    try:
        strategy = strategy_for(model, wish.strategy, wish.options, body.reasoning_effort)
        budget = within(model.budget, wish.budget)
    except ConfigurationError as error:
        raise ApiError(400, str(error), param="reasoner") from error
    limit = body.token_limit
    if limit is not None and (budget.max_tokens is None or limit < budget.max_tokens):
        budget = replace(budget, max_tokens=limit)
    return Job(model, question, context, strategy, budget, seed if body.seed is None else body.seed)


async def _explain(request: Request, error: Exception) -> Response:
    if isinstance(error, ApiError):
        return error.response()
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code in (404, 405):
        message = f"there is no {request.method} {request.url.path}; try POST /v1/chat/completions or GET /v1/models"
    return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)


async def _explain_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    unknown = first["type"] == "extra_forbidden"
    why = f"there is no field {where}; leave it out" if unknown else f"{where}: {first['msg']}"
    return JSONResponse(error_body(400, why, "unknown_parameter" if unknown else "invalid_value", where or None), 400)


class Gate:
    """Before a request's body is read: its host, key, kind and size. Counts what was answered."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._digests = [sha256(key.encode()).digest() for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id = f"chatcmpl-{uuid.uuid4().hex}"
        scope.setdefault("state", {})["id"] = id
        status = "gone"

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id.encode())]
            await send(message)

        try:
            refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
            if refusal is not None:
                await refusal.response()(scope, receive, counted)
            else:
                await self._app(scope, self._measured(receive), counted)
        except Exception:
            status = "500"
            raise
        finally:
            self._metrics.add("o1_reason_requests_total", status=status)

    def _refusal(self, method: str, path: str, headers: Headers) -> ApiError | None:
        """Why it must not come in; None: it may."""
        if not self._digests and not is_loopback(_host(headers)):
            # A web page can have its own name point here, and then read what it is answered.
            return ApiError(403, "without API keys only requests to localhost are served", code="wrong_host")
        if path not in OPEN and self._digests and not self._knows(headers.get("authorization", "")):
            message = "a valid API key is needed: Authorization: Bearer KEY"
            return ApiError(401, message, code="invalid_api_key", www_authenticate="Bearer")
        if method == "POST":
            # Other kinds a browser sends for any web page, without asking first whether it may.
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return ApiError(415, "the body must be JSON: Content-Type: application/json")
            length = headers.get("content-length", "")
            if length.isdigit() and int(length) > self._settings.body_bytes:
                return self._too_large()
        return None

    def _knows(self, authorization: str) -> bool:
        """In the same time, whatever the keys and whichever of them it is."""
        scheme, _, given = authorization.partition(" ")
        digest = sha256(given.strip().encode("latin-1")).digest()
        equal = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(equal) and scheme.lower() == "bearer"

    def _measured(self, receive: Receive) -> Receive:
        taken = 0

        async def measured() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._settings.body_bytes:
                raise self._too_large()
            return message

        return measured

    def _too_large(self) -> ApiError:
        return ApiError(413, f"a request may have {self._settings.body_bytes} bytes", connection="close")


def _host(headers: Headers) -> str:
    """The name under which the client knows this server, without the port; empty for nonsense."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine for itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
