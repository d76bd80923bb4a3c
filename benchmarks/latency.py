"""Wall time against the ideal: mock models that sleep, with the heavy-tailed latency of real servers.

    python benchmarks/latency.py [--quick]

Latencies are lognormal (sigma 1, median 20 ms), drawn from a fixed seed and written down call by call with what each
call had to wait for, so that the ideal is known. Two of them:

    bound    max(work / slots, longest chain of calls that wait for each other): no schedule can be shorter. None that
             cannot see the future gets there either: some slow call always starts late
    ideal    list scheduling of the same calls in the same order: each starts the moment that a slot is free and what
             it waits for is done. No barrier, no overhead

Also: what an early stop saves, whether the deadline is kept, and whether a budget is ever overspent.

Needs the extra `bench`. Exits with 1 if a promise is broken.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from _report import Report, parse_quick
from its_hub.api import AbstractLanguageModel, AbstractOutcomeRewardModel
from its_hub.core.algorithms.bon import BestOfN as PeerBestOfN
from its_hub.core.orchestrator import LMOrchestrator

from o1_reason import (
    MCTS,
    BeamSearch,
    BestOfN,
    Budget,
    Expansion,
    Proposals,
    Score,
    SelfConsistency,
    State,
    Step,
    Tree,
    Usage,
    create_reasoner,
    search,
)

QUESTION = "What is the answer?"
MEDIAN, SIGMA = 0.020, 1.0


class Latency:
    """Sleeps, and writes down how long: the i-th call of a role always takes the same time."""

    def __init__(self, seed: int, median: float = MEDIAN, sigma: float = SIGMA) -> None:
        self._seed, self._median, self._sigma = seed, median, sigma
        self.slept: list[float] = []
        self.started = self.running = self.cancelled = 0

    def of(self, role: str, i: int) -> float:
        """The latency of a role's i-th call, seconds."""
        return self._median * random.Random(f"{self._seed}|{role}|{i}").lognormvariate(0.0, self._sigma)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.started += 1
        self.running += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


class Models:
    """A policy and a verifier over an endless tree, where each path ends at `depth`.

    `calls` holds seconds and predecessor (None: none) of every call, in the order in which they were made. Of the
    answers, the share `agree` is "42".
    """

    def __init__(self, latency: Latency, depth: int = 16, *, agree: float = 0.0, samples_per_call: int | None = None):
        self.latency, self.depth, self.agree = latency, depth, agree
        self.samples_per_call = samples_per_call
        self.calls: list[tuple[float, int | None]] = []
        self.samples = self.proposed = 0
        self._made_by: dict[str, int] = {}  # step -> the last call that it needed
        self._random = random.Random(1).random

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        seconds = self.latency.of("propose", self.proposed)
        self.proposed += 1
        start = self.samples
        self.samples += n
        call = self._call(seconds, state.steps[-1].text if state.steps else None)
        await self.latency.sleep(seconds)
        steps = [self._step(i, len(state.steps) + 1) for i in range(start, start + n)]
        self._made_by.update((step.text, call) for step in steps)
        return Proposals(tuple((step,) for step in steps), Usage(1, 10, n))

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        last = states[0].steps[-1].text
        seconds = self.latency.of("score", int(last.split()[1]))
        call = self._call(seconds, last)
        await self.latency.sleep(seconds)
        self._made_by.update((state.steps[-1].text, call) for state in states)
        return [Score((self._random(),), usage=Usage(0 if i else 1)) for i in range(len(states))]

    def _call(self, seconds: float, after: str | None) -> int:
        self.calls.append((seconds, None if after is None else self._made_by[after]))
        return len(self.calls) - 1

    def _step(self, i: int, depth: int) -> Step:
        if depth < self.depth:
            return Step(f"step {i}", logprob=-0.5, tokens=1)
        answer = "42" if random.Random(i).random() < self.agree else str(i)
        return Step(f"answer {i}", True, answer, -0.5, 1)

    def lower_bound(self, slots: int) -> float:
        """No schedule of the calls can be shorter."""
        ends: list[float] = []
        for seconds, after in self.calls:
            ends.append(seconds + (0.0 if after is None else ends[after]))
        return max(max(ends), sum(seconds for seconds, _ in self.calls) / slots)

    def ideal(self, slots: int) -> float:
        """What list scheduling of the calls takes."""
        followers: dict[int | None, list[int]] = {}
        for call, (_, after) in enumerate(self.calls):
            followers.setdefault(after, []).append(call)
        ready = followers.get(None, [])
        running: list[tuple[float, int]] = []
        now = 0.0
        while ready or running:
            while ready and len(running) < slots:
                call = heapq.heappop(ready)
                heapq.heappush(running, (now + self.calls[call][0], call))
            now, call = heapq.heappop(running)
            for follower in followers.get(call, []):
                heapq.heappush(ready, follower)
        return now


async def timed(work: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = await work
    return time.perf_counter() - start, result


# 256 expansions.


async def expansions(report: Report, quick: bool) -> None:
    seeds = range(3 if quick else 7)
    kinds = {
        "MCTS, 256 expansions": (MCTS(256), 16, None),
        "best of 128": (BestOfN(128), 1, 1),
    }
    rows = []
    for kind, (strategy, depth, each) in kinds.items():
        for driver in ("search", "create_reasoner"):
            walls, ideals, bounds, calls = [], [], [], 0
            for seed in seeds:
                models = Models(Latency(seed), depth, samples_per_call=each)
                budget = Budget(concurrency=16, max_nodes=None)
                if driver == "search":
                    wall, _ = await timed(search(QUESTION, models, models, strategy, budget))
                else:
                    graph = create_reasoner(models, models, strategy=strategy, budget=budget)
                    wall, _ = await timed(graph.ainvoke({"question": QUESTION}))
                walls.append(wall)
                ideals.append(wall / models.ideal(16))
                bounds.append(wall / models.lower_bound(16))
                calls = len(models.calls)
            rows.append([
                kind, driver, str(calls), f"{median(walls):.3f}",
                f"{min(ideals):.3f}", f"{median(ideals):.3f}", f"{max(ideals):.3f}", f"{median(bounds):.3f}",
            ])  # fmt: skip
            if driver == "search":
                ratio = median(ideals)
                report.promise(ratio <= 1.10, f"no barrier, {kind}: wall / ideal {ratio:.3f}, bound 1.10")
    report.table(
        "16 calls at once",
        ("", "driver", "calls", "wall s", "/ ideal: best", "median", "worst", "/ bound"),
        rows,
        f"{len(seeds)} seeds; medians where nothing else is said",
    )


# Best of 64, all at once.


class PeerModel(AbstractLanguageModel):
    """its_hub's model; as a judge, its i-th candidate takes the time that ours takes to score."""

    def __init__(self, latency: Latency, role: str) -> None:
        self.latency, self.role, self.calls = latency, role, 0

    async def agenerate_single(self, messages: Any, stop: str | None = None, **kwargs: Any) -> dict[str, Any]:
        i = self.calls if self.role == "propose" else int(messages[-1].content.split()[1])
        self.calls += 1
        await self.latency.sleep(self.latency.of(self.role, i))
        return {"role": "assistant", "content": f"answer {i}"}

    async def agenerate(self, messages: Any, stop: str | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError


class PeerJudge(AbstractOutcomeRewardModel):
    """A model call per candidate, as its_hub's LLMJudge makes them."""

    def __init__(self, model: PeerModel) -> None:
        self.model = model

    def score(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def ascore(self, messages: Any, orchestrator: Any = None, **kwargs: Any) -> Any:
        answers = await orchestrator.agenerate(self.model, messages)
        return [float(len(answer["content"])) for answer in answers]


async def peer_best_of(latency: Latency, limit: int) -> None:
    model, judge = PeerModel(latency, "propose"), PeerJudge(PeerModel(latency, "score"))
    await PeerBestOfN(judge, LMOrchestrator(limit)).ainfer(model, QUESTION, 64)


async def best_of(report: Report, quick: bool) -> None:
    seeds = range(3 if quick else 9)
    ratios: dict[str, list[float]] = {"o1-reason": [], "its_hub, unlimited": [], "its_hub, default (32 at once)": []}
    for seed in seeds:
        latency = Latency(seed)
        ideal = max(latency.of("propose", i) + latency.of("score", i) for i in range(64))
        models = Models(latency, 1, samples_per_call=1)
        wall, _ = await timed(search(QUESTION, models, models, BestOfN(64), Budget(concurrency=64)))
        ratios["o1-reason"].append(wall / ideal)
        wall, _ = await timed(peer_best_of(Latency(seed), -1))
        ratios["its_hub, unlimited"].append(wall / ideal)
        wall, _ = await timed(peer_best_of(Latency(seed), 32))
        ratios["its_hub, default (32 at once)"].append(wall / ideal)
    rows = [
        [name, f"{min(each):.3f}", f"{median(each):.3f}", f"{max(each):.3f}"] for name, each in ratios.items()
    ]  # fmt: skip
    report.table(
        "Best of 64, 64 calls at once: wall / ideal",
        ("", "best", "median", "worst"),
        rows,
        f"{len(seeds)} seeds, the same latencies for all; ideal: max_i(generate_i + score_i)",
    )
    mine = min(ratios["o1-reason"])
    report.promise(
        mine <= 1.10, f"scoring starts when a generation ends, best of 64: wall / ideal {mine:.3f}, bound 1.10"
    )


# Stopping.


class AtOnce(SelfConsistency):
    """Self-consistency that orders all its samples at the start, for speed rather than thrift."""

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        left = self.n - tree.nodes[0].drawn
        return [Expansion(0, left, self.max_depth, self.temperature)] if left > 0 else ()


async def early_stop(report: Report, quick: bool) -> None:
    seeds = range(2 if quick else 5)
    rows = []
    everything = [max(Latency(seed).of("propose", i) for i in range(64)) for seed in seeds]
    rows.append(["waiting for all 64", f"{median(everything):.3f}", "64", "0", "0"])
    for name, strategy in (("SelfConsistency(64)", SelfConsistency(64)), ("the same, all ordered at once", AtOnce(64))):
        walls, started, cancelled, left = [], [], [], []
        for seed in seeds:
            latency = Latency(seed)
            models = Models(latency, 1, agree=0.85, samples_per_call=1)
            wall, result = await timed(search(QUESTION, models, None, strategy, Budget(concurrency=64)))
            assert result.answer == "42" and result.stop == "done", result
            walls.append(wall)
            started.append(latency.started)
            cancelled.append(latency.cancelled)
            left.append(latency.running)
        rows.append([
            name, f"{median(walls):.3f}", f"{median(started):.0f}", f"{median(cancelled):.0f}", str(max(left)),
        ])  # fmt: skip
        report.promise(max(left) == 0, f"early stop, {name}: {max(left)} calls running afterwards")
        if name != "SelfConsistency(64)":
            ahead = max(wall / each for wall, each in zip(walls, everything, strict=True))
            report.promise(
                min(cancelled) > 0 and ahead < 1,
                f"early stop cancels stragglers: {min(cancelled)} calls or more, {ahead:.2f} of the wait or less",
            )
    report.table(
        "A vote that is decided early: 85 % agree",
        ("", "wall s", "calls started", "cancelled", "running after"),
        rows,
    )


async def deadline(report: Report, quick: bool) -> None:
    rows = []
    for name, median_latency, strategy in (
        ("every call takes minutes", 300.0, BestOfN(64)),
        ("most calls take half a second", 0.5, BestOfN(64)),
        ("calls take 20 ms, the search would go on", 0.02, MCTS(10_000)),
    ):
        for driver in ("search", "create_reasoner"):
            latency = Latency(0, median_latency, 0.5)
            models = Models(latency, 1 if isinstance(strategy, BestOfN) else 5, samples_per_call=1)
            budget = Budget(concurrency=64, max_seconds=0.5, max_nodes=None)
            if driver == "search":
                wall, result = await timed(search(QUESTION, models, models, strategy, budget))
                stop, answer = result.stop, result.answer
            else:
                graph = create_reasoner(models, models, strategy=strategy, budget=budget)
                wall, output = await timed(graph.ainvoke({"question": QUESTION}))
                stop, answer = output["stop"], output["answer"]
            rows.append([
                name, driver, stop, "yes" if answer is not None else "no", f"{wall:.3f}", str(latency.started),
                str(latency.running),
            ])  # fmt: skip
            report.promise(
                wall <= 0.6 and stop == "deadline" and latency.running == 0,
                f"deadline, {name}, {driver}: {wall * 1e3 - 500:+.0f} ms, bound 100; {latency.running} calls left",
            )
    report.table(
        "max_seconds=0.5", ("", "driver", "stop", "answer", "wall s", "calls started", "running after"), rows
    )  # fmt: skip


async def budget(report: Report, quick: bool) -> None:
    rows = []
    strategies: dict[str, tuple[Any, int]] = {
        "BestOfN(64)": (BestOfN(64), 1),
        "BeamSearch()": (BeamSearch(), 8),
        "MCTS(256)": (MCTS(256), 8),
        "SelfConsistency(64)": (SelfConsistency(64), 1),
    }
    over = 0
    for name, (strategy, depth) in strategies.items():
        for most in (1, 7, 50) if quick else (1, 2, 7, 20, 50, 99):
            latency = Latency(0, 0.0005)
            models = Models(latency, depth, samples_per_call=1 if depth == 1 else None)
            limits = Budget(max_calls=most, concurrency=16)
            result = await search(QUESTION, models, models, strategy, limits)
            over = max(over, latency.started - most)
            rows.append([name, str(most), str(latency.started), str(result.usage.calls), result.stop])
            assert result.usage.calls == latency.started, (result.usage, latency.started)
    report.promise(over <= 0, f"never overspend: calls started above max_calls: {max(over, 0)}")
    report.table("max_calls", ("", "max_calls", "calls started", "usage.calls", "stop"), rows)


async def main(quick: bool) -> None:
    report = Report()
    for part in (expansions, best_of, early_stop, deadline, budget):
        await part(report, quick)
    report.exit()


if __name__ == "__main__":
    asyncio.run(main(parse_quick(__doc__)))
