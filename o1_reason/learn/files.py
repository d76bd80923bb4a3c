"""Reading data of others: JSON lines, JSON arrays, Parquet, one entry after the other."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

EXTRA = "pip install 'o1-reason[learn]'"


def read_json(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with their lines (of an array: their places), from 1.

    A file of JSON lines is read line by line, an array at once. Raises ConfigurationError for what is neither.
    """
    line = 1
    try:
        with open(path, encoding="utf-8-sig") as file:
            start = file.read(1)
            entries = (
                json.loads(start + file.read()) if start == "[" else map(_entry, chain([start + next(file, "")], file))
            )
            for line, entry in enumerate(entries, 1):
                if isinstance(entry, dict):
                    yield line, entry
                elif entry is not None:
                    raise ConfigurationError(f"{path}, line {line}: an entry must be a JSON object; got {entry!r:.60}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); give a file of JSON lines") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}, after line {line}: this is no JSON ({error})") from error


def _entry(text: str) -> Any:
    return json.loads(text) if text.strip() else None


def read_parquet(path: str | Path, batch: int = 64) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file with their places, from 1, `batch` in memory; what `write_parquet` wrote comes back.

    Raises ConfigurationError without pyarrow, or for a file that is not Parquet.
    """
    pyarrow, parquet = import_parquet()
    try:
        with parquet.ParquetFile(str(path)) as file:
            metadata = file.schema_arrow.metadata or {}
            packed = json.loads(metadata.get(b"o1_reason.json", b"[]"))
            rows = chain.from_iterable(part.to_pylist() for part in file.iter_batches(batch_size=batch))
            for line, row in enumerate(rows, 1):
                yield line, {name: json.loads(v) if name in packed and v else v for name, v in row.items()}
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); give a Parquet file") from error


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of a file of JSON lines, a JSON array or, by its name, a Parquet file."""
    return read_parquet(path) if Path(path).suffix == ".parquet" else read_json(path)


def import_parquet() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises ConfigurationError where they are not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(f"Parquet needs pyarrow: {EXTRA}") from error
    return pyarrow, parquet
