"""Who may ask: settings of a server, and what is looked at before a request's body is read."""

import hmac
import ipaddress
import uuid
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ConfigurationError
from .metrics import Metrics
from .wire import ApiError

OPEN = ("/health",)  # asked for by load balancers, which have no key
NAMED = "/live/"  # below it, whoever knows the name of a search may look: a browser has no key to send


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a server.

    keys          API keys, one of which a request must carry; none: none is asked for, and requests that name another
                  host than this machine are refused
    searches      at once
    queue         searches more that may wait for a place; beyond them 429
    body_bytes    most bytes of a request's body
    cors_origins  web pages that may call from a browser; none: none may
    live          searches, the latest, that can be looked at in a browser, while they run and afterwards
    """

    keys: tuple[str, ...] = ()
    searches: int = 8
    queue: int = 64
    body_bytes: int = 1 << 20
    cors_origins: tuple[str, ...] = ()
    live: int = 16

    def __post_init__(self) -> None:
        if self.searches < 1 or self.queue < 0 or self.body_bytes < 1 or self.live < 0:
            raise ConfigurationError("a server needs room for a search, queue and live of 0 or more, a body of a byte")
        if any(not key.strip() for key in self.keys):
            raise ConfigurationError("an API key is empty; leave it out, or give one that nobody guesses")
        if "*" in self.cors_origins:
            raise ConfigurationError("name the web origins that may call, such as https://chat.example.org; * is all")


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
            headers = Headers(scope=scope)
            scope["state"]["owner"] = _digest(headers) if self._digests else b""
            refusal = self._refusal(scope["method"], scope["path"], headers)
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
        free = path in OPEN or path.startswith(NAMED)
        if not free and self._digests and not self._knows(headers):
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

    def _knows(self, headers: Headers) -> bool:
        """In the same time, whatever the keys and whichever of them it is."""
        digest = _digest(headers)
        equal = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(equal) and headers.get("authorization", "").partition(" ")[0].lower() == "bearer"

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


def _digest(headers: Headers) -> bytes:
    """Of the key that a request carries."""
    return sha256(headers.get("authorization", "").partition(" ")[2].strip().encode("latin-1")).digest()


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
