import builtins
import json

import pytest

from o1_reason import BestOfN, Budget, ConfigurationError
from o1_reason.learn import Problem, TraceStore, collect, read_rows, to_dataset, tree_of, write_jsonl, write_parquet
from o1_reason.testing import ScriptedPolicy

STEPWISE = [
    {"id": "a", "prompt": "q", "completions": ["x", "é"], "labels": [None, None], "rollouts": [None, 3], "source": "s"},
    {"id": "b", "prompt": "q", "completions": ["y"], "labels": [0.25], "rollouts": [8], "source": "s"},
]


def test_rows_are_written_once_each_and_read_again(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert write_jsonl([*STEPWISE, STEPWISE[0]], path) == 2
    assert [row for _, row in read_rows(path)] == STEPWISE
    assert "é" in path.read_text(encoding="utf-8")


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(STEPWISE, path)

    def broken():
        yield {"id": "c"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(broken(), path)
    assert [row for _, row in read_rows(path)] == STEPWISE


def test_parquet_keeps_labels_that_are_null_or_fractions(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'o1-reason[learn]'")
    rows = [{**STEPWISE[0], "id": str(i)} for i in range(100)] + STEPWISE
    assert write_parquet(rows, tmp_path / "rows.parquet") == 102
    assert [row for _, row in read_rows(tmp_path / "rows.parquet")] == rows
    assert str(parquet.read_schema(tmp_path / "rows.parquet").field("labels").type) == "list<element: double>"
    with pytest.raises(ConfigurationError, match="there are no rows"):
        write_parquet([], tmp_path / "rows.parquet")


async def test_traces_survive_parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'o1-reason[learn]'")
    store = TraceStore(tmp_path / "traces.jsonl")
    policy = ScriptedPolicy({(): ["a", "= 4"], ("a",): ["= 5"]}, repeat=True)
    problems = [Problem("q"), Problem("r", "4", ({"role": "user", "content": "Before."},))]
    await collect(problems, policy, None, BestOfN(4), Budget(), None, store)
    write_parquet(store, tmp_path / "traces.parquet")
    back = [row for _, row in read_rows(tmp_path / "traces.parquet")]
    assert back == list(store)
    assert tree_of(back[0]) == tree_of(next(iter(store)))


def test_data_sets_have_the_columns_of_trl(tmp_path):
    pytest.importorskip("datasets", reason="needs datasets: pip install 'o1-reason[learn]'")
    table = to_dataset([*STEPWISE, STEPWISE[1]])
    assert table.num_rows == 2
    assert table.features["labels"].feature.dtype == "float64"
    assert table[0]["labels"] == [None, None]
    assert table[1]["labels"] == [0.25], "soft labels stay soft"
    pair = {"id": "p", "prompt": "q\n", "chosen": "a", "rejected": "b", "margin": 1.0}
    assert to_dataset([pair])[0] == pair
    with pytest.raises(ConfigurationError, match="there are no rows"):
        to_dataset([])


@pytest.mark.parametrize(
    ("call", "needs"),
    [
        (lambda path: to_dataset(STEPWISE), "datasets"),
        (lambda path: write_parquet(STEPWISE, path), "pyarrow"),
        (lambda path: list(read_rows(path)), "pyarrow"),
    ],
)
def test_what_is_not_installed_is_named(call, needs, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] in ("datasets", "pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=rf"needs {needs}: pip install 'o1-reason\[learn\]'"):
        call(tmp_path / "rows.parquet")


def test_odd_text_is_written_as_utf_8(tmp_path):
    write_jsonl([{"id": "a", "prompt": "half \ud83d a pair"}], tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_bytes())["prompt"] == "half ? a pair"
