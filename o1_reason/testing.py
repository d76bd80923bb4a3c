"""For people who write plug-ins: the laws of the three protocols as checks, and scripted models for their tests.

    async def test_my_policy():
        await check_policy(MyPolicy(), "a question it can answer")

    async def test_my_strategy():
        await check_strategy(MyStrategy())

A broken law is an AssertionError, PolicyError, VerifierError or StrategyError that names it.
"""

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from .budget import Budget
from .driver import search
from .errors import StrategyError
from .mdp import Expansion, Proposals, Score, State, Step, Usage
from .protocols import Policy, Strategy, Verifier, check_proposals, check_scores
from .result import Result
from .tree import Tree

Path = tuple[str, ...]
Candidate = str | Step | Sequence[Step]


class ScriptedPolicy:
    """Looks proposals up by the steps so far; `calls` records what it was asked.

    `script` maps a path (the texts of the steps, () at the root) to candidates: a `Step`, several, or a text.
    ``"= 24"`` (a text that begins with "= ") is a terminal step with the answer 24. An exception is raised. Asked
    again at the same path, the script goes on where it stopped, and round again at its end if `repeat`.
    """

    def __init__(
        self,
        script: Mapping[Path, Sequence[Candidate] | Exception],
        *,
        repeat: bool = False,
        latency: float = 0.0,
        identity: str = "scripted-policy",
        samples_per_call: int | None = None,
    ) -> None:
        self.script = script
        self.repeat = repeat
        self.latency = latency
        self.identity = identity
        self.samples_per_call = samples_per_call
        self.calls: list[tuple[Path, int, int]] = []
        self._given: dict[Path, int] = {}

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        path = tuple(step.text for step in state.steps)
        self.calls.append((path, n, max_steps))
        first = self._given.get(path, 0)
        self._given[path] = first + n
        if self.latency:
            await asyncio.sleep(self.latency)
        known = self.script.get(path, ())
        if isinstance(known, Exception):
            raise known
        at = range(first, first + n) if self.repeat and known else range(first, min(first + n, len(known)))
        candidates = tuple(_candidate(known[i % len(known)])[:max_steps] for i in at)
        tokens = sum(step.tokens for candidate in candidates for step in candidate)
        return Proposals(candidates, Usage(1, 1 + len(path), tokens))


class ScriptedVerifier:
    """Looks rewards up by the texts of the steps: of the whole path, or else of its last step, or else `default`."""

    def __init__(
        self,
        values: Mapping[Path | str, float],
        default: float = 0.0,
        *,
        latency: float = 0.0,
        identity: str = "scripted-verifier",
    ) -> None:
        self.values = values
        self.default = default
        self.latency = latency
        self.identity = identity
        self.calls: list[list[Path]] = []

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        paths = [tuple(step.text for step in state.steps) for state in states]
        self.calls.append(paths)
        if self.latency:
            await asyncio.sleep(self.latency)
        usage = Usage(1)
        return [Score((self._value(path),), usage=usage if i == 0 else Usage()) for i, path in enumerate(paths)]

    def _value(self, path: Path) -> float:
        last = path[-1] if path else ""
        return self.values.get(path, self.values.get(last, self.default))


def _candidate(given: Candidate) -> tuple[Step, ...]:
    if isinstance(given, str):
        if given.startswith("= "):
            return (Step(given, terminal=True, answer=given[2:], tokens=1),)
        return (Step(given, tokens=1),)
    return (given,) if isinstance(given, Step) else tuple(given)


class RandomWorld:
    """A policy and a verifier over a random tree that `seed` decides, answering in an order that `order` decides.

    A state has up to `branch` different steps; depth `depth` ends every path; some end earlier, some end dead, some
    steps come twice. Both roles are this one object.
    """

    def __init__(self, seed: int, *, branch: int = 4, depth: int = 4, order: int = 0) -> None:
        self.seed, self.branch, self.depth = seed, branch, depth
        self.identity = f"random-world-{seed}"
        self._order = random.Random(order)
        self._waiting: list[asyncio.Future[None]] = []
        self._drawn: dict[Path, int] = {}

    def _dice(self, kind: str, path: Path) -> random.Random:
        return random.Random(f"{self.seed}|{kind}|{'|'.join(path)}")

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        path = tuple(step.text for step in state.steps)
        first = self._drawn.get(path, 0)
        self._drawn[path] = first + n
        await self._turn()
        candidates: list[tuple[Step, ...]] = []
        for i in range(first, first + n):
            candidate: list[Step] = []
            while len(candidate) < max_steps:
                step = self._step((*path, *(s.text for s in candidate)), i)
                if step is None:
                    break
                candidate.append(step)
                if step.terminal:
                    break
            if candidate:
                candidates.append(tuple(candidate))
        return Proposals(tuple(candidates), Usage(1, len(path), n))

    def _step(self, path: Path, i: int) -> Step | None:
        dice = self._dice("step", path)
        if dice.random() < 0.1:
            return None
        dice = self._dice(f"step{i}", path)
        text = f"{len(path)}.{dice.randrange(self.branch)}"
        chance = self._dice("end", (*path, text))
        if len(path) + 1 >= self.depth or chance.random() < 0.15:
            return Step(text + "!", True, str(chance.randrange(3)), -chance.random(), 1)
        return Step(text, logprob=-chance.random(), tokens=1)

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        await self._turn()
        return [Score((self.value(tuple(s.text for s in state.steps)),)) for state in states]

    def value(self, path: Path) -> float:
        """The reward of the path's last step: a multiple of 1/8, so that ties occur."""
        return self._dice("value", path).randrange(9) / 8

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if len(self._waiting) == 1:
            loop.call_later(0, self._release)
        await mine

    def _release(self) -> None:
        waiting = [future for future in self._waiting if not future.done()]
        self._waiting.clear()
        if waiting:
            waiting.pop(self._order.randrange(len(waiting))).set_result(None)
        if waiting:
            self._waiting.extend(waiting)
            asyncio.get_running_loop().call_later(0, self._release)


class Lawful:
    """A strategy that asserts the laws around another at every call."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.max_depth = getattr(strategy, "max_depth", None)
        self.uses_verifier = getattr(strategy, "uses_verifier", True)

    def select(self, tree: Tree, room: int) -> Sequence[Expansion]:
        before = tree.to_data()
        chosen = self.strategy.select(tree, room)
        assert tree.to_data() == before, "select changed the tree"
        assert len(chosen) <= room, f"select gave {len(chosen)} expansions for {room} free slots"
        for expansion in chosen:
            assert 0 <= expansion.node < len(tree), f"selected node {expansion.node} does not exist"
            assert tree.nodes[expansion.node].open, f"selected node {expansion.node} is finished or dead"
            assert expansion.n >= 1, "an expansion of no samples"
            assert expansion.max_steps >= 1, "an expansion of no steps"
        if not tree.in_flight and not tree.unscored:
            assert chosen, "not done, nothing in flight, and nothing selected"
        return chosen

    def backup(self, tree: Tree, new: Sequence[int]) -> None:
        before = _without_statistics(tree)
        self.strategy.backup(tree, new)
        assert _without_statistics(tree) == before, "backup may write visits and values only"
        for node in tree.nodes:
            assert 0 <= node.value <= 1 and math.isfinite(node.value), f"the value of {node} is not in [0, 1]"
            assert node.visits >= 0, f"the visits of {node} are negative"

    def done(self, tree: Tree) -> bool:
        before = tree.to_data()
        over = self.strategy.done(tree)
        assert tree.to_data() == before, "done changed the tree"
        return over

    def answer(self, tree: Tree) -> int | None:
        chosen = self.strategy.answer(tree)
        if chosen is not None and not tree.nodes[chosen].terminal:
            raise StrategyError(f"answer gave node {chosen}, which is not terminal")
        return chosen


def _without_statistics(tree: Tree) -> list[dict[str, Any]]:
    dropped = ("visits", "value")
    return [{k: v for k, v in node.items() if k not in dropped} for node in tree.to_data()["nodes"]]


async def check_strategy(strategy: Strategy, *, worlds: int = 20, seed: int = 0) -> None:
    """The laws of `Strategy` on random trees, random completion orders and several widths of the pool.

    Not done and nothing in flight implies that something is selected; a selected node exists, is open and not
    terminal; `backup` writes only visits and values; `answer` is terminal; every search ends; the same seed and
    completion order give the same tree.
    """
    for world in range(seed, seed + worlds):
        budget = Budget(concurrency=1 + world % 5, max_nodes=None)
        results: list[Result] = []
        for _ in range(2):
            models = RandomWorld(world, branch=1 + world % 6, depth=1 + world % 5, order=world)
            results.append(await search("law", models, models, Lawful(strategy), budget, seed=world))
        assert results[0].tree == results[1].tree, "the same seed and completion order gave two different trees"
        assert results[0].stop in ("done", "exhausted")


async def check_policy(policy: Policy, question: str) -> None:
    """The laws of `Policy`: for single and several candidates, single steps and whole solutions, greedy and not.

    It follows its own first candidates to the end (at most 64 steps) and then proposes nothing more.
    """
    start = State(question)
    for n, max_steps, temperature in ((1, 1, None), (3, 1, None), (2, 64, None), (1, 64, 0.0)):
        check_proposals(await policy.propose(start, n, max_steps, temperature=temperature), n, max_steps)
    state = start
    for _ in range(64):
        proposals = check_proposals(await policy.propose(state, 1), 1, 1)
        if not proposals.candidates:
            return
        state += proposals.candidates[0][0]
        if state.steps[-1].terminal:
            after = await policy.propose(state, 1)
            assert not after.candidates, "a finished state was continued"
            return


async def check_verifier(verifier: Verifier, states: Sequence[State]) -> None:
    """The laws of `Verifier`: one score per state, in [0, 1], in order, whatever they are batched with."""
    together = check_scores(await verifier.score(states), states)
    assert not list(await verifier.score([])), "no states have no scores"
    for state, score in zip(states, together, strict=True):
        alone = check_scores(await verifier.score([state]), [state])[0]
        for one, other in zip(alone.rewards, score.rewards, strict=True):
            assert math.isclose(one, other, abs_tol=1e-4), f"scored {one} alone and {other} with others"
