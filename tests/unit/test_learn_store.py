import asyncio
import errno
import json
import os
import subprocess
import sys

import pytest

from o1_reason import ConfigurationError, O1ReasonError
from o1_reason.learn import RecordStore, TraceStore
from o1_reason.learn.store import digest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "records.jsonl"


async def test_records_come_back_in_order_each_id_once(path):
    with RecordStore(path) as store:
        assert await store.add({"id": "b", "x": "ä\n"}, {"id": "a"}) == 2
        assert await store.add({"id": "a", "x": "other"}) == 0
        assert await store.add({"id": "c"}, {"x": 1, "id": "c"}) == 1
        assert ("a" in store, "d" in store) == (True, False)
    assert list(RecordStore(path)) == [{"id": "b", "x": "ä\n"}, {"id": "a"}, {"id": "c"}]
    with RecordStore(path) as store:
        assert await store.add({"id": "b"}) == 0


async def test_a_torn_line_is_cut_off_and_its_record_can_be_added_again(path):
    with RecordStore(path) as store:
        await store.add({"id": "a", "text": "whole"}, {"id": "b", "text": "torn"})
    for length in range(1, len(b'{"id": "b", "text": "torn"}\n')):
        whole = path.read_bytes()
        os.truncate(path, len(whole) - length)
        assert [record["id"] for record in RecordStore(path)] == ["a"], "a reader passes over it"
        with RecordStore(path) as store:
            assert "b" not in store
            await store.add({"id": "b", "text": "torn"})
        assert path.read_bytes() == whole


async def test_a_broken_line_in_the_middle_is_named(path):
    path.parent.mkdir()
    path.write_text('{"id": "a"}\n{"x": 1}\n')
    with pytest.raises(ConfigurationError, match='line 2: a record must be an object with an "id"'):
        RecordStore(path).__enter__()
    path.write_text('{"id": "a"}\n\x00\x00\n{"id": "b"}\n')
    with pytest.raises(ConfigurationError, match="line 2: this is no JSON"):
        list(RecordStore(path))


async def test_one_writer_at_a_time_and_any_reader(path):
    code = f"from o1_reason.learn import RecordStore; print(len(list(RecordStore({str(path)!r}))))"
    with RecordStore(path) as store:
        await store.add({"id": "a"})
        with pytest.raises(ConfigurationError, match="another program is writing to"):
            await RecordStore(path).add({"id": "b"})
        assert (await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", code])).strip() == b"1"
    with RecordStore(path) as store:
        assert await store.add({"id": "a"}, {"id": "b"}) == 1


async def test_many_tasks_may_add_at_once(path):
    with RecordStore(path, fsync=True) as store:
        await asyncio.gather(*(store.add({"id": str(i % 50), "text": "x" * 1000}) for i in range(200)))
    assert sorted(record["id"] for record in RecordStore(path)) == sorted(map(str, range(50)))


async def test_a_full_disk_leaves_no_half_line(path, monkeypatch):
    store = RecordStore(path)
    await store.add({"id": "a"})

    class Full:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            if len(data) > 10:
                return self._file.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self._file, name)

    whole, store._file = store._file, Full(store._file)
    with pytest.raises(O1ReasonError, match="free some space"):
        await store.add({"id": "b", "text": "long"})
    store._file = whole
    await store.add({"id": "c"})
    store.close()
    assert [record["id"] for record in RecordStore(path)] == ["a", "c"]


async def test_a_large_record_does_not_hold_up_the_event_loop_nor_memory(path):
    """Ids are found without parsing the rest of a line: it need not even be JSON for them to be known."""
    path.parent.mkdir()
    path.write_text('{"id": "a", "tree": ' + "[" * 100_000 + "\n")
    with RecordStore(path) as store:
        assert "a" in store


def test_traces_are_told_from_other_records(path):
    path.parent.mkdir()
    path.write_text(json.dumps({"id": "a", "prompt": "q"}) + "\n")
    with pytest.raises(ConfigurationError, match='line 1: a trace has a "tree"'):
        list(TraceStore(path))


def test_ids_are_equal_where_what_they_stand_for_is():
    assert digest("a", {"x": 1, "y": [2]}, None) == digest("a", {"y": [2], "x": 1}, None)
    assert len({digest("a", "b"), digest("ab"), digest("a", ["b"]), digest("b", "a"), digest("a\ud800")}) == 5
