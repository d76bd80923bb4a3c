"""A paid call is never paid twice: finished model calls, kept under a key of their content.

Key = sha256 of the adapter's identity, the canonical request, the sampling parameters and the index of the first
sample. On resume after a crash the same requests find their answers, in whatever order they finish.
"""

import asyncio
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .errors import ConfigurationError, LedgerError
from .mdp import Proposals, Score, State, Usage
from .tree import step_data, step_from


@runtime_checkable
class Ledger(Protocol):
    """Keeps plain JSON records; safe to use from several searches at once."""

    async def get(self, key: str) -> dict[str, Any] | None: ...

    async def put(self, key: str, record: dict[str, Any]) -> None: ...

    async def close(self) -> None: ...


class SQLiteLedger:
    """The default ledger: one SQLite file in WAL mode, a thread of its own, safe against kill -9.

    With ``synchronous=NORMAL`` the last calls before a power loss may be missing; they are then paid again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._worker: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            patience = time.monotonic() + 30
            while True:  # SQLite does not wait for others while it turns WAL on: several may open a new file at once
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute("PRAGMA synchronous=NORMAL")
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, record TEXT) WITHOUT ROWID"
                    )
                    break
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > patience:
                        connection.close()
                        raise
                    time.sleep(0.01)
            self._connection = connection
        return self._connection

    def _get(self, key: str) -> dict[str, Any] | None:
        row = self._open().execute("SELECT record FROM calls WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _put(self, key: str, text: str) -> None:
        self._open().execute("INSERT OR REPLACE INTO calls VALUES (?, ?)", (key, text))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _run(self, function: Any, *arguments: Any) -> Any:
        with self._lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="o1-reason-ledger")
            future = self._worker.submit(function, *arguments)
        try:
            return await asyncio.wrap_future(future)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise LedgerError(
                f"the ledger {self.path} cannot be used ({error}); free some space or give another path"
            ) from error

    async def get(self, key: str) -> dict[str, Any] | None:
        return await self._run(self._get, key)

    async def put(self, key: str, record: dict[str, Any]) -> None:
        await self._run(self._put, key, json.dumps(record))

    async def close(self) -> None:
        """Close the file; a later call opens it again."""
        await self._run(self._close)
        with self._lock:
            if self._worker is not None:
                self._worker.shutdown(wait=False)
                self._worker = None


class StoreLedger:
    """A ledger in any LangGraph store (``BaseStore``: in memory, SQLite, Postgres, Redis)."""

    def __init__(self, store: Any, namespace: tuple[str, ...] = ("o1_reason", "ledger")) -> None:
        self.store = store
        self.namespace = namespace

    async def get(self, key: str) -> dict[str, Any] | None:
        item = await self.store.aget(self.namespace, key)
        return None if item is None else item.value

    async def put(self, key: str, record: dict[str, Any]) -> None:
        await self.store.aput(self.namespace, key, record, index=False)

    async def close(self) -> None:
        """The store belongs to whoever made it."""


def resolve_ledger(given: object | None) -> Ledger | None:
    """A path becomes a `SQLiteLedger`, a LangGraph store a `StoreLedger`, a `Ledger` stays what it is."""
    if given is None:
        return None
    if isinstance(given, str | Path):
        return SQLiteLedger(given)
    if hasattr(given, "aput") and hasattr(given, "aget"):
        return StoreLedger(given)
    if isinstance(given, Ledger):
        return given
    raise ConfigurationError(f"ledger must be a path, a LangGraph store or a Ledger; got {given!r}")


def identity_of(plug_in: object, role: str) -> str:
    """Raises ConfigurationError for a policy or verifier without an `identity`."""
    identity = getattr(plug_in, "identity", None)
    if not isinstance(identity, str) or not identity:
        raise ConfigurationError(
            f"a ledger needs to know what it keeps: give the {role} {type(plug_in).__name__} an attribute "
            "identity: str (model, endpoint, sampling parameters)"
        )
    return identity


def key_of(identity: str, kind: str, state: State, **parameters: Any) -> str:
    """The ledger's key of one call."""
    request = {
        "identity": identity,
        "kind": kind,
        "question": state.question,
        "context": list(state.context),
        "steps": [[step.text, step.terminal, step.answer] for step in state.steps],
        **parameters,
    }
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()


def proposals_data(proposals: Proposals) -> dict[str, Any]:
    """Plain JSON types; `proposals_from` is the inverse."""
    candidates = [[step_data(step) for step in candidate] for candidate in proposals.candidates]
    return {"candidates": candidates, "usage": proposals.usage.to_data()}


def proposals_from(data: dict[str, Any]) -> Proposals:
    candidates = tuple(tuple(step_from(step) for step in candidate) for candidate in data["candidates"])
    return Proposals(candidates, Usage(**data["usage"]))


def scores_data(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Plain JSON types; `scores_from` is the inverse."""
    return [{"rewards": list(s.rewards), "critique": s.critique, "usage": s.usage.to_data()} for s in scores]


def scores_from(data: Sequence[dict[str, Any]]) -> list[Score]:
    return [Score(tuple(d["rewards"]), d["critique"], Usage(**d["usage"])) for d in data]
