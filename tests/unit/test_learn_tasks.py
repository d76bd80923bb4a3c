import asyncio
import builtins
from contextlib import aclosing

import pytest

from o1_reason import ConfigurationError, SQLiteLedger
from o1_reason.learn import run_tasks, shared_ledger


async def test_arguments_come_back_with_what_came_of_them_in_order_of_completion():
    async def wait(ms):
        await asyncio.sleep(ms / 1000)
        if ms == 20:
            raise ValueError(ms)
        return -ms

    outcomes = [outcome async for outcome in run_tasks(wait, [60, 20, 1, 40], concurrency=4)]
    assert [argument for argument, _ in outcomes] == [1, 20, 40, 60]
    assert isinstance(outcomes[1][1], ValueError)
    assert outcomes[0][1] == -1


async def test_no_more_run_at_once_than_are_allowed_and_arguments_are_taken_as_there_is_room():
    running, most, taken = 0, 0, 0

    def arguments():
        nonlocal taken
        for i in range(20):
            taken += 1
            yield i

    async def work(i):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    done = 0
    async for _ in run_tasks(work, arguments(), concurrency=3):
        done += 1
        assert taken <= done + 3
    assert (done, most) == (20, 3)


async def test_closing_cancels_what_runs_and_waits_until_it_is_gone():
    ended = []

    async def work(i):
        try:
            await asyncio.sleep(0 if i == 0 else 60)
        finally:
            ended.append(i)

    async with aclosing(run_tasks(work, range(10), concurrency=3)) as outcomes:
        async for argument, _ in outcomes:
            assert argument == 0
            break
    assert sorted(ended) == [0, 1, 2], "the fourth was not begun"
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_in_the_arguments_is_raised_and_leaves_nothing_running():
    def arguments():
        yield 0
        raise ConfigurationError("no more")

    async def work(i):
        await asyncio.sleep(60)

    with pytest.raises(ConfigurationError, match="no more"):
        await anext(run_tasks(work, arguments(), concurrency=3))
    assert len(asyncio.all_tasks()) == 1


async def test_a_window_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="concurrency must be an integer >= 1"):
        await anext(run_tasks(asyncio.sleep, [0], concurrency=0))


async def test_without_ray_the_way_to_it_is_told(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"pip install 'o1-reason\[ray\]'"):
        await anext(run_tasks(asyncio.sleep, [0], ray="auto"))


async def test_a_ledger_of_ones_own_stays_open_and_a_path_is_closed(tmp_path):
    mine = SQLiteLedger(tmp_path / "mine.db")
    async with shared_ledger(mine, None) as ledger:
        assert ledger is mine
        await ledger.put("a", {"x": 1})
    assert mine._connection is not None
    await mine.close()
    async with shared_ledger(tmp_path / "mine.db", None) as ledger:
        assert await ledger.get("a") == {"x": 1}
    assert ledger._connection is None
    async with shared_ledger(None, None) as ledger:
        assert ledger is None
