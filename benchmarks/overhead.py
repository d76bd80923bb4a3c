"""CPU time of the search itself: mock models that answer at once, ours and peers in one run.

    python benchmarks/overhead.py [--quick]

Process CPU time, best of several interleaved repetitions, the mocks included on both sides. A *call* is one awaited
invocation of a model: a `propose`, a `score`, an `agenerate`, a reward model's `ascore`; treequest's `generate` does
both jobs of one and counts as two. A *sample* is one step or solution that was generated and scored, however many of
them a call carries.

Needs the extra `bench`. Exits with 1 if a promise is broken.
"""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import treequest
from _report import Report, parse_quick
from its_hub.api import AbstractLanguageModel, AbstractOutcomeRewardModel, AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch as PeerBeamSearch
from its_hub.core.algorithms.bon import BestOfN as PeerBestOfN
from its_hub.core.lms.step_generation import StepGeneration
from its_hub.core.orchestrator import LMOrchestrator
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from o1_reason import MCTS, BeamSearch, BestOfN, Budget, Proposals, Score, State, Step, Usage, create_reasoner, search

TEXT = "the quick brown fox reasons over the lazy dog, one step at a time, until the answer is found "  # 93 characters
QUESTION = "What is the answer?"
WIDE = Budget(concurrency=128, max_nodes=None)
NARROW = Budget(concurrency=16, max_nodes=None)


# Models that answer at once.


class MockPolicy:
    """Unique steps; a path ends at `depth`."""

    def __init__(self, depth: int = 1, samples_per_call: int | None = None) -> None:
        self.depth = depth
        self.samples_per_call = samples_per_call
        self.calls = self.samples = 0

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        self.calls += 1
        end = len(state.steps) + 1 >= self.depth
        candidates: list[tuple[Step, ...]] = []
        for _ in range(n):
            self.samples += 1
            text = f"{TEXT}{self.samples}"
            candidates.append((Step(text, end, str(self.samples % 7) if end else None, -0.5, 24),))
        return Proposals(tuple(candidates), Usage(1, 30, 24 * n))


class MockVerifier:
    """Rewards of a fixed random sequence."""

    def __init__(self) -> None:
        self.calls = 0
        self._random = random.Random(0).random

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        self.calls += 1
        return [Score((self._random(),)) for _ in states]


class PeerModel(AbstractLanguageModel):
    """its_hub's language model; as a judge it answers with a number."""

    def __init__(self) -> None:
        self.calls = 0
        self._random = random.Random(0).random

    async def agenerate_single(self, messages: Any, stop: str | None = None, **kwargs: Any) -> dict[str, Any]:
        self.calls += 1
        return {"role": "assistant", "content": f"{TEXT}{self.calls}", "score": self._random()}

    async def agenerate(self, messages: Any, stop: str | None = None, **kwargs: Any) -> Any:
        return await asyncio.gather(*(self.agenerate_single(each, stop) for each in messages))


class PeerJudge(AbstractOutcomeRewardModel):
    """its_hub's outcome reward model: all candidates in one call, or by `model` in one call each, as its LLMJudge."""

    def __init__(self, model: PeerModel | None = None) -> None:
        self.model = model
        self.calls = 0
        self._random = random.Random(0).random

    def score(self, messages: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def ascore(self, messages: Any, orchestrator: Any = None, **kwargs: Any) -> Any:
        if self.model is not None:
            answers = await orchestrator.agenerate(self.model, messages)
            self.calls = self.model.calls
            return [answer["score"] for answer in answers]
        self.calls += 1
        return [self._random() for _ in messages]


class PeerStepRewards(AbstractProcessRewardModel):
    """its_hub's process reward model: all candidates of a level in one call."""

    def __init__(self) -> None:
        self.calls = 0
        self._random = random.Random(0).random

    def score(self, prompt_or_messages: Any, steps: Any) -> Any:
        raise NotImplementedError

    async def ascore(self, prompt_or_messages: Any, steps: Any) -> Any:
        self.calls += 1
        return [self._random() for _ in steps]


# Workloads: each runs once and says how many calls and samples that took.

Counts = tuple[int, int]
Workload = Callable[[], Awaitable[Counts]]


def ours(
    strategy: Any, depth: int, budget: Budget, samples_per_call: int | None = None, graph: bool = False
) -> Workload:
    async def run() -> Counts:
        policy, verifier = MockPolicy(depth, samples_per_call), MockVerifier()
        if graph:
            reasoner = create_reasoner(policy, verifier, strategy=strategy, budget=budget)
            stop = (await reasoner.ainvoke({"question": QUESTION}))["stop"]
        else:
            stop = (await search(QUESTION, policy, verifier, strategy, budget)).stop
        assert stop in ("done", "exhausted"), stop
        return policy.calls + verifier.calls, policy.samples

    return run


def peer_best_of(n: int, *, unlimited: bool, judge: bool) -> Workload:
    async def run() -> Counts:
        model, rewards = PeerModel(), PeerJudge(PeerModel() if judge else None)
        orchestrator = LMOrchestrator(-1) if unlimited else LMOrchestrator()
        await PeerBestOfN(rewards, orchestrator).ainfer(model, QUESTION, n)
        return model.calls + rewards.calls, n

    return run


def peer_beam(width: int, n: int, depth: int) -> Workload:
    async def run() -> Counts:
        model, rewards = PeerModel(), PeerStepRewards()
        steps = StepGeneration(max_steps=depth, step_token="\n\n")
        await PeerBeamSearch(steps, rewards, beam_width=width).ainfer(model, QUESTION, n)
        return model.calls + rewards.calls, model.calls

    return run


def peer_mcts(expansions: int, *, copy: bool) -> Workload:
    async def run() -> Counts:
        number, rewards = iter(range(1 << 30)), random.Random(0)

        def generate(parent: str | None) -> tuple[str, float]:
            return f"{TEXT}{next(number)}", rewards.random()

        algorithm: Any = treequest.StandardMCTS()
        tree = algorithm.init_tree()
        if copy:
            for _ in range(expansions):
                tree = algorithm.step(tree, {"generate": generate})
        else:
            for _ in range(expansions // 2):
                tree, trials = algorithm.ask_batch(tree, 2, ["generate"])
                for trial in trials:
                    tree = algorithm.tell(tree, trial.trial_id, generate(trial.parent_state))
        return 2 * expansions, expansions

    return run


def floor(n: int) -> Workload:
    """The mocks alone: n generations, then n scores, each in a task of its own."""

    async def run() -> Counts:
        policy, verifier, state = MockPolicy(1), MockVerifier(), State(QUESTION)
        await asyncio.gather(*(policy.propose(state, 1) for _ in range(n)))
        await asyncio.gather(*(verifier.score([state]) for _ in range(n)))
        return 2 * n, n

    return run


# Measuring.


@dataclass
class Cost:
    """The cheapest repetition of a workload."""

    seconds: float
    calls: int
    samples: int

    @property
    def per_call(self) -> float:
        return self.seconds / self.calls * 1e6

    @property
    def per_sample(self) -> float:
        return self.seconds / self.samples * 1e6


async def measure(workloads: dict[str, tuple[Workload, int]]) -> dict[str, Cost]:
    """Best of so many repetitions of each, interleaved, after one to warm up."""
    costs: dict[str, Cost] = {}
    for turn in range(max(times for _, times in workloads.values())):
        for name, (workload, times) in workloads.items():
            if turn >= times:
                continue
            if turn == 0 and times > 1:
                await workload()
            gc.collect()
            start = time.process_time()
            calls, samples = await workload()
            cost = Cost(time.process_time() - start, calls, samples)
            if name not in costs or cost.seconds < costs[name].seconds:
                costs[name] = cost
    return costs


async def checkpoint_bytes(simulations: int) -> tuple[int, int, float]:
    """Bytes in SQLite after one MCTS, its nodes, and its CPU seconds."""
    policy, verifier = MockPolicy(16), MockVerifier()
    async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
        reasoner = create_reasoner(
            policy, verifier, strategy=MCTS(simulations), budget=NARROW, checkpointer=saver
        )  # fmt: skip
        start = time.process_time()
        output = await reasoner.ainvoke({"question": QUESTION}, {"configurable": {"thread_id": "1"}})
        seconds = time.process_time() - start
        assert output["stop"] in ("done", "exhausted")
        written = 0
        for query in (
            "SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints",
            "SELECT coalesce(sum(length(value)), 0) FROM writes",
        ):
            async with saver.conn.execute(query) as rows:
                (size,) = await rows.fetchone() or (0,)
                written += size
    return written, policy.samples, seconds


# The tables.

COLUMNS = ("", "calls", "samples", "CPU ms", "us / call", "us / sample", "x ours")


def rows_of(costs: dict[str, Cost], reference: str) -> list[list[str]]:
    base = costs[reference]
    return [
        [
            name,
            str(cost.calls),
            str(cost.samples),
            f"{cost.seconds * 1e3:.2f}",
            f"{cost.per_call:.1f}",
            f"{cost.per_sample:.1f}",
            f"{cost.per_call / base.per_call:.2f}",
        ]
        for name, cost in costs.items()
    ]


async def best_of(report: Report, quick: bool) -> None:
    times = 30 if quick else 120
    costs = await measure(
        {
            "o1-reason": (ours(BestOfN(64), 1, WIDE, samples_per_call=1), times),
            "o1-reason, concurrency 64": (ours(BestOfN(64), 1, Budget(concurrency=64), samples_per_call=1), times),
            "o1-reason, all samples in one call": (ours(BestOfN(64), 1, WIDE), times),
            "its_hub unlimited, a judge call per candidate": (peer_best_of(64, unlimited=True, judge=True), times),
            "its_hub unlimited, all scores in one call": (peer_best_of(64, unlimited=True, judge=False), times),
            "its_hub default, a judge call per candidate": (peer_best_of(64, unlimited=False, judge=True), times),
            "its_hub default, all scores in one call": (peer_best_of(64, unlimited=False, judge=False), times),
            "floor: asyncio.gather of the mocks": (floor(64), times),
        }
    )
    report.table(
        "Best of 64",
        COLUMNS,
        rows_of(costs, "o1-reason"),
        "call: an awaited call of either model; sample: generated and scored; x ours: per call, against the first row",
    )
    mine = costs["o1-reason"].per_call
    theirs = costs["its_hub unlimited, all scores in one call"].per_call
    report.promise(
        mine < theirs, f"best of 64: {mine:.1f} us of CPU per call, below its_hub's {theirs:.1f} (unlimited)"
    )


async def beam(report: Report, quick: bool) -> None:
    times = 10 if quick else 40
    costs = await measure(
        {
            "o1-reason, a call per sample": (ours(BeamSearch(4, 4, 10), 10, WIDE, samples_per_call=1), times),
            "o1-reason, a call per expansion": (ours(BeamSearch(4, 4, 10), 10, WIDE), times),
            "its_hub, all scores of a level in one call": (peer_beam(4, 16, 10), times),
        }
    )
    report.table("Beam search, width 4, 16 candidates a level, depth 10", COLUMNS, rows_of(costs, next(iter(costs))))


async def mcts(report: Report, quick: bool) -> None:
    times = 5 if quick else 15
    costs = await measure(
        {
            "o1-reason, 4 samples an expansion": (ours(MCTS(256), 16, NARROW), times),
            "o1-reason, 2 samples an expansion": (ours(MCTS(256, branch=2, root_branch=16), 16, NARROW), times),
            "treequest, ask_batch(2) and tell": (peer_mcts(256, copy=False), times),
            "treequest, step as in its README": (peer_mcts(256, copy=True), 1 if quick else 3),
        }
    )
    report.table("MCTS, 256 expansions", COLUMNS, rows_of(costs, next(iter(costs))))


async def growth(report: Report, quick: bool) -> None:
    sizes = (256, 1024, 4096)
    times = {256: 8, 1024: 3, 4096: 2} if quick else {256: 20, 1024: 8, 4096: 5}
    kinds: dict[str, Callable[[int], Workload]] = {
        "MCTS": lambda n: ours(MCTS((n - 16) // 4), 16, NARROW),
        "beam, as deep as it takes": lambda n: ours(BeamSearch(4, 4, n // 16), n // 16, NARROW),
        "best of n": lambda n: ours(BestOfN(n), 1, NARROW, samples_per_call=1),
    }
    costs = await measure({f"{kind} {n}": (make(n), times[n]) for kind, make in kinds.items() for n in sizes})
    rows = []
    for kind in kinds:
        per_node = [costs[f"{kind} {n}"].per_sample for n in sizes]
        ratio = per_node[-1] / per_node[0]
        rows.append([kind, *(f"{each:.1f}" for each in per_node), f"{ratio:.2f}"])
        report.promise(ratio <= 1.3, f"flat CPU, {kind}: x{ratio:.2f} per node from 256 to 4096 nodes, bound 1.3")
    report.table("CPU us per node", ("nodes", *map(str, sizes), "4096 / 256"), rows)


async def graph(report: Report, quick: bool) -> None:
    times = 3 if quick else 10
    kinds = {
        "best of 64": (BestOfN(64), 1, WIDE, 1),
        "MCTS, 64 expansions": (MCTS(64), 16, NARROW, None),
    }
    rows = []
    for kind, (strategy, depth, budget, each) in kinds.items():
        costs = await measure(
            {
                "search": (ours(strategy, depth, budget, each), 3 * times),
                "graph": (ours(strategy, depth, budget, each, graph=True), times),
            }
        )
        loop = costs["graph"].per_call - costs["search"].per_call
        share = loop / 200e3
        rows.append([
            kind, f"{costs['search'].per_call:.1f}", f"{costs['graph'].per_call:.0f}", f"{loop:.0f}", f"{share:.2%}",
        ])  # fmt: skip
        report.promise(share < 0.01, f"LangGraph loop, {kind}: {share:.2%} of a 200 ms call, bound 1 %")
    report.table(
        "LangGraph loop, no checkpointer, CPU us per call",
        ("", "search", "create_reasoner", "loop", "of 200 ms"),
        rows,
    )


async def checkpoints(report: Report, quick: bool) -> None:
    sizes = (256, 1024) if quick else (256, 1024, 4096)
    rows, per_node = [], []
    for n in sizes:
        written, nodes, seconds = await checkpoint_bytes((n - 16) // 4)
        per_node.append(written / nodes)
        rows.append([f"{n} nodes", f"{written / 1e6:.2f}", f"{per_node[-1]:.0f}", f"{seconds / nodes * 1e3:.2f}"])
    ratio = per_node[-1] / per_node[0]
    report.table(
        "MCTS with AsyncSqliteSaver", ("", "MB written", "bytes / node", "CPU ms / node"), rows,
        "checkpoints and pending writes, as they stand in the database",
    )  # fmt: skip
    report.promise(ratio <= 1.3, f"flat checkpoints: x{ratio:.2f} bytes per node from 256 to {sizes[-1]}, bound 1.3")


async def main(quick: bool) -> None:
    gc.collect()
    gc.freeze()  # what was imported is not what is measured
    report = Report()
    for part in (best_of, beam, mcts, growth, graph, checkpoints):
        await part(report, quick)
    report.exit()


if __name__ == "__main__":
    asyncio.run(main(parse_quick(__doc__)))
