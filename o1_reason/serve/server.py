"""From a checked configuration to a running server, and to its end."""

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .models import Model

if TYPE_CHECKING:
    import uvicorn

    from ..learn import TraceStore
    from .desk import Desk
    from .gate import Settings


def run(
    models: Sequence[Model], *, host: str, port: int, grace: float, seed: int = 0, ledger: Any = None,
    record: "TraceStore | None" = None,
    log_level: str = "info", **settings: Any,
) -> None:  # fmt: skip
    """Serve until a signal ends it (SIGTERM, SIGINT), then let running searches go on for `grace` seconds.

    `settings` are those of `gate.Settings`. Raises ConfigurationError where FastAPI or uvicorn is missing, and for an
    address that others can reach without an API key.
    """
    try:
        import uvicorn

        from .app import create_app
    except ImportError as error:
        raise ConfigurationError(f"serving needs {error.name}: pip install 'o1-reason[serve]'") from error
    app = create_app(models, guarded(host, **settings), seed=seed, ledger=ledger, record=record)
    config = uvicorn_config(app, host, port, grace=grace, log_level=log_level)
    asyncio.run(serve(uvicorn.Server(config), app.state.desk, grace))


def guarded(host: str, **settings: Any) -> "Settings":
    """The settings of a server on `host`. Raises ConfigurationError for one that others can reach without a key."""
    from .gate import Settings, is_loopback

    given = Settings(**settings)
    if not given.keys and not is_loopback(host):
        raise ConfigurationError(
            f"others can reach {host}, so API keys are needed: set O1_REASON_API_KEYS, or give --api-key"
        )
    return given


def uvicorn_config(app: Any, host: str, port: int, *, grace: float, log_level: str) -> "uvicorn.Config":
    """`grace` is for searches; connections get a little more."""
    import uvicorn

    return uvicorn.Config(
        app, host=host, port=port, log_level=log_level, server_header=False, ws="none",
        timeout_graceful_shutdown=math.ceil(grace) + 5,
    )  # fmt: skip


async def serve(server: "uvicorn.Server", desk: "Desk", grace: float) -> None:
    """Serve, and drain the desk once the server has been told to end."""
    serving = asyncio.ensure_future(server.serve())
    while not server.should_exit and not serving.done():
        await asyncio.wait({serving}, timeout=0.1)
    draining = asyncio.ensure_future(desk.drain(grace))
    await asyncio.wait({serving, draining}, return_when=asyncio.FIRST_COMPLETED)  # a second SIGINT does not wait
    await serving
    await desk.cancel()
    await draining
