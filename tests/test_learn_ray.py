"""On a real Ray cluster of this machine: the same data as without, also when a worker is killed in the middle."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from paid import Paid, paid

from o1_reason import BeamSearch, Budget, ConfigurationError, VerifierError
from o1_reason.learn import (
    GoldChecker,
    MathShepherd,
    OmegaPRM,
    Problem,
    RecordStore,
    TraceStore,
    collect,
    label,
    run_tasks,
)

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'o1-reason[ray]'")

pytestmark = [  # Ray forgets about processes that it has ended
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PROBLEMS = [Problem(f"question {i}", "0") for i in range(8)]
STRATEGY, BUDGET = BeamSearch(3, 3), Budget(concurrency=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
    )
    yield "auto"
    ray.shutdown()


def records(store: RecordStore) -> list[str]:
    return sorted(json.dumps(record) for record in store)


async def kill_a_worker(folder: Path, after: int) -> int:
    """Kill the process that made the latest call, once `after` calls are through; returns its id."""
    while len(paid(folder)) < after:  # noqa: ASYNC110 - in other processes
        await asyncio.sleep(0.002)
    victim = paid(folder)[-1][0]
    assert victim != os.getpid()
    os.kill(victim, signal.SIGKILL)
    return victim


async def test_a_cluster_of_this_machine_lasts_as_long_as_its_tasks():
    """First, as long as the program is connected to none."""
    assert not ray.is_initialized()

    async def double(number: int) -> int:
        return 2 * number

    tasks = run_tasks(double, range(3), ray="local")
    assert sorted([outcome async for outcome in tasks]) == [(0, 0), (1, 2), (2, 4)]
    assert not ray.is_initialized()


@pytest.mark.parametrize("what", ["collect", "label"])
async def test_a_worker_killed_in_the_middle_changes_nothing_and_no_finished_call_is_paid_again(
    what: str, cluster: str, tmp_path: Path
):
    async def make(folder: Path, ray: str | None) -> list[str]:
        model, ledger = Paid(folder, 0.02), folder / "ledger.db"
        if what == "collect":
            store = TraceStore(folder / "data.jsonl")
            options = {"concurrency": 4, "ledger": ledger, "ray": ray}
            progress = await collect(PROBLEMS, model, model, STRATEGY, BUDGET, None, store, **options)
        else:
            store = RecordStore(folder / "data.jsonl")
            progress = await label(
                PROBLEMS, MathShepherd(3, 4), model, GoldChecker(), store, calls=2, ledger=ledger, ray=ray
            )
        assert (progress.added, progress.failures) == (len(PROBLEMS), ())
        return records(store)

    for name in ("here", "there"):
        os.mkdir(tmp_path / name)
    expected = await make(tmp_path / "here", None)
    calls = {mark for _, mark in paid(tmp_path / "here")}
    killed = asyncio.create_task(kill_a_worker(tmp_path / "there", len(calls) // 3))
    assert await make(tmp_path / "there", cluster) == expected
    victim = await killed
    log = paid(tmp_path / "there")
    assert {mark for _, mark in log} == calls
    assert {process for process, _ in log} - {victim, os.getpid()}, "others went on"
    assert len(log) - len(calls) <= 3, "only what the victim's calls in flight had brought"


async def test_omega_prm_is_the_same_on_a_cluster(cluster: str, tmp_path: Path):
    found: list[list[str]] = []
    for name, address in (("here", None), ("there", cluster)):
        store = RecordStore(tmp_path / f"{name}.jsonl")
        await label(PROBLEMS[:4], OmegaPRM(4, 5), Paid(tmp_path, 0), GoldChecker(), store, ray=address)
        found.append(records(store))
    assert found[0]
    assert found[0] == found[1]


async def refuse(number: int) -> int:
    if number == 2:
        raise VerifierError("no")
    return number


async def test_exceptions_come_back_from_workers_as_what_they_are(cluster: str):
    outcomes = {argument: outcome async for argument, outcome in run_tasks(refuse, range(4), ray=cluster)}
    failed = outcomes.pop(2)
    assert isinstance(failed, VerifierError)
    assert str(failed) == "no"
    assert outcomes == {0: 0, 1: 1, 3: 3}


async def test_what_ray_cannot_carry_is_refused_with_the_way_out(cluster: str):
    lock = asyncio.Lock()
    pipe = (line for line in "a")

    async def bound(number: int) -> object:
        return lock, pipe

    with pytest.raises(ConfigurationError, match="give policy and verifier by name"):
        async for _ in run_tasks(bound, [1], ray=cluster):
            pass


async def test_closing_the_iterator_cancels_what_runs_on_the_cluster(cluster: str, tmp_path: Path):
    tasks = run_tasks(Sleeper(tmp_path), range(2), ray=cluster)
    waiting = asyncio.create_task(anext(tasks))
    while len(os.listdir(tmp_path)) < 2:  # noqa: ASYNC110 - in other processes
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async for _, outcome in run_tasks(refuse, [1], ray=cluster):  # gets a worker although both were asleep
        assert outcome == 1


class Sleeper:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, number: int) -> None:
        (self.folder / str(number)).touch()
        await asyncio.sleep(300)
