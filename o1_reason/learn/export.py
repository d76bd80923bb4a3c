"""Rows to files, and to what trainers read."""

import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .files import EXTRA, import_parquet
from .rows import Row, distinct
from .store import line_of

ROWS = 64  # in memory, on the way to Parquet


def write_jsonl(rows: Iterable[Row], path: str | Path) -> int:
    """The rows, each id once, as JSON lines; how many they are. The file is there whole, or as it was."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".part")
    count = 0
    with open(draft, "wb") as file:
        for row in distinct(rows):
            file.write(line_of(row))
            count += 1
    os.replace(draft, target)
    return count


def write_parquet(rows: Iterable[Row], path: str | Path) -> int:
    """The same as Parquet, for rows and traces. A tree is JSON text in it, which `read_rows` undoes.

    Raises ConfigurationError without pyarrow, or for no rows.
    """
    pyarrow, parquet = import_parquet()
    parts = _batched(distinct(rows), ROWS)
    first = next(parts, None)
    if first is None:
        raise ConfigurationError(f"there are no rows to write to {path}")
    schema, packed = _schema(pyarrow, first[0])
    target = Path(path)
    draft = target.with_name(target.name + ".part")
    count = 0
    with parquet.ParquetWriter(str(draft), schema) as writer:
        for part in chain([first], parts):
            plain = [{n: json.dumps(v) if n in packed else v for n, v in row.items()} for row in part]
            writer.write_table(pyarrow.Table.from_pylist(plain, schema=schema))
            count += len(part)
    os.replace(draft, target)
    return count


def _batched(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while part := list(islice(rows, size)):
        yield part


def _schema(pyarrow: Any, row: Row) -> tuple[Any, list[str]]:
    """Of the formats of `rows` and `traces`, and which columns hold JSON. Other columns hold texts."""
    texts, number, whole = pyarrow.list_(pyarrow.string()), pyarrow.float64(), pyarrow.int64()
    kinds = {"completions": texts, "steps": texts, "labels": pyarrow.list_(number), "rollouts": pyarrow.list_(whole)}
    kinds |= {"margin": number, "seed": whole, "node": whole, "correct": pyarrow.bool_()}
    packed = [name for name in ("context", "usage", "tree") if name in row]
    fields = [(name, kinds.get(name, pyarrow.string())) for name in row]
    return pyarrow.schema(fields, metadata={"o1_reason.json": json.dumps(packed)}), packed


def to_dataset(rows: Iterable[Row]) -> Any:
    """A `datasets.Dataset` of rows of one kind, each id once, as TRL and transformers take it.

    Labels are floats, null where unknown. Raises ConfigurationError without datasets, or for no rows.
    """
    try:
        from datasets import Dataset, Features, List, Value
    except ImportError as error:
        raise ConfigurationError(f"a data set needs datasets: {EXTRA}") from error
    table = list(distinct(rows))
    if not table:
        raise ConfigurationError("there are no rows to make a data set of")
    kinds = {"completions": List(Value("string")), "steps": List(Value("string")), "labels": List(Value("float64"))}
    kinds |= {"rollouts": List(Value("int64")), "margin": Value("float64")}
    features = Features({name: kinds.get(name, Value("string")) for name in table[0]})
    return Dataset.from_list(table, features=features)
