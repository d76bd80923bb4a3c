"""The ASGI application: its routes, and what a request asks for."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ..errors import ConfigurationError
from ..learn import TraceStore
from ..ledger import resolve_ledger
from ..settings import within
from .desk import Desk, Job
from .gate import Gate, Settings
from .lives import add_live_routes
from .models import Model, strategy_for
from .reply import SearchReply
from .responses import Responded, ResponsesRequest
from .wire import ApiError, ChatRequest, Completion, error_body


def create_app(
    models: Sequence[Model], settings: Settings, *, seed: int = 0, ledger: Any = None, record: TraceStore | None = None
) -> FastAPI:
    """The application that serves `models`; its `state.desk` holds the searches.

    Raises ConfigurationError for no model, or two of one name.
    """
    served = {model.id: model for model in models}
    if not served or len(served) < len(models):
        raise ConfigurationError("a server needs a model, and each under a name of its own")
    desk = Desk(settings.searches, settings.queue, resolve_ledger(ledger), settings.live, record)
    app = FastAPI(openapi_url=None, lifespan=_lifespan)
    app.state.desk = desk
    _add_routes(app, desk, served, seed)
    add_live_routes(app, desk)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(RequestValidationError, _explain_validation)
    app.add_middleware(Gate, settings=settings, metrics=desk.metrics)
    if settings.cors_origins:  # outermost: a browser's preflight carries no key
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["retry-after", "x-request-id", "x-reasoner-live"],
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
        form = Completion(request.state.id, job.model.id, body.stream_options.include_usage)
        return SearchReply(desk, job, request.state.id, form, body.stream)

    @app.post("/v1/responses")
    async def respond(body: ResponsesRequest, request: Request) -> Response:
        try:
            job = _job(known(body.model), body.as_chat(), seed)
        except ApiError as error:
            error.param = "input" if error.param == "messages" else error.param
            raise
        return SearchReply(desk, job, request.state.id, Responded(job.model.id), body.stream)

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
