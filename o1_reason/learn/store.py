"""Records in a file of JSON lines that survives kill -9: append-only, one line a record, no id twice."""

import asyncio
import hashlib
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any, Self

from ..errors import ConfigurationError, O1ReasonError

_ID = re.compile(rb'\{"id": "([^"\\]*)"')


def digest(*parts: Any) -> str:
    """An id made from JSON types (what is none, by its repr): equal parts, equal ids."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class RecordStore:
    """Records with an "id", in the order in which they were added. Memory holds the ids, and one record at a time.

    A line is with the operating system before `add` returns: kill -9 loses nothing that was added. `fsync` has `add`
    wait for the disk as well, so that a power loss loses nothing either; without it the disk is waited for at `close`.
    What a kill left of a half-written line is cut off when the file is opened for writing.

    Iterating needs no lock and sees whole lines only. One process at a time may `add`: the file is opened, and locked,
    by the first of `add`, ``in`` and ``with``. Raises ConfigurationError where another one has it, or for a file of
    something else.
    """

    def __init__(self, path: str | Path, *, fsync: bool = False) -> None:
        self.path = Path(path)
        self.fsync = fsync
        self._file: IO[bytes] | None = None
        self._ids: set[str] = set()
        self._lock = threading.Lock()

    async def add(self, *records: dict[str, Any]) -> int:
        """Append those of `records` whose ids are not here yet, in one write; how many they were."""
        return await asyncio.to_thread(self._add, records)

    def _add(self, records: Iterable[dict[str, Any]]) -> int:
        with self._lock:
            file = self._open()
            new = {record["id"]: record for record in reversed(list(records)) if record["id"] not in self._ids}
            if new:
                self._append(file, b"".join(map(line_of, reversed(new.values()))))
                self._ids.update(new)
            return len(new)

    def _append(self, file: IO[bytes], lines: bytes) -> None:
        end = file.seek(0, os.SEEK_END)
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            if self.fsync:
                os.fsync(file.fileno())
        except OSError as error:
            file.truncate(end)  # nothing may follow half a line
            raise O1ReasonError(f"{self.path} cannot be written ({error}); free some space, and go on") from error

    def __contains__(self, id: str) -> bool:
        with self._lock:
            self._open()
            return id in self._ids

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.path.exists():
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        yield _read(self.path, number, line)

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - until close
            try:
                _lock(file, self.path)
                self._ids = self._repaired(file)
            except BaseException:
                file.close()
                raise
            self._file = file
        return self._file

    def _repaired(self, file: IO[bytes]) -> set[str]:
        """The ids in `file`, after what a kill left at its end was cut off."""
        ids: set[str] = set()
        end = 0
        with open(self.path, "rb") as reader:
            for number, line in enumerate(reader, 1):
                if not line.endswith(b"\n"):
                    file.truncate(end)
                    break
                match = _ID.match(line)
                ids.add(match[1].decode() if match else _read(self.path, number, line)["id"])
                end += len(line)
        return ids

    def close(self) -> None:
        """Wait for the disk and let others write; a later `add` opens the file again."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None

    def __enter__(self) -> Self:
        with self._lock:
            self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@asynccontextmanager
async def opened(*stores: RecordStore) -> AsyncIterator[None]:
    """The stores open for writing, off the event loop: of a large file the ids are read first."""
    async with AsyncExitStack() as stack:
        for store in stores:
            stack.push_async_callback(asyncio.to_thread, store.close)  # also if it is opened while this is cancelled
            await asyncio.to_thread(store.__enter__)
        yield


def line_of(record: dict[str, Any]) -> bytes:
    """A record as a line of UTF-8, its id first."""
    ordered = {"id": record["id"], **record} if "id" in record else record
    return json.dumps(ordered, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _read(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(
            f"{path}, line {number}: this is no JSON ({error}); mend or remove the line"
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        raise ConfigurationError(f'{path}, line {number}: a record must be an object with an "id"; give another file')
    return record


def _lock(file: IO[bytes], path: Path) -> None:
    """Held until `file` is closed, or its process is gone."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 40)  # a byte that is never read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigurationError(f"another program is writing to {path}; wait for it, or give another file") from error
