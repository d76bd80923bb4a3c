"""Both drivers: the bare `search` and the LangGraph graph of `create_reasoner`."""

import asyncio
import operator
import random
from contextlib import aclosing, suppress
from typing import Annotated

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from o1_reason import (
    DVTS,
    MCTS,
    BeamSearch,
    BestOfN,
    Budget,
    ChainOfThought,
    DepthFirst,
    PolicyError,
    Proposals,
    Score,
    SelfConsistency,
    Step,
    Tree,
    Usage,
    VerifierError,
    create_reasoner,
    search,
)
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

STRATEGIES = [
    ChainOfThought(),
    SelfConsistency(6),
    BestOfN(6, "min", "weighted"),
    BeamSearch(2, 3),
    DepthFirst(3, 0.3),
    DVTS(6, 2),
    MCTS(12, 2),
    MCTS(12, 2, root="puct"),
]


every_strategy = pytest.mark.parametrize(
    "strategy", STRATEGIES, ids=lambda s: f"{type(s).__name__}-{STRATEGIES.index(s)}"
)


class World:
    """Policy and verifier in one, pure functions of what they are asked, counting the calls in flight."""

    def __init__(self, delay=0.0, depth=4, fail=()):
        self.delay, self.depth, self.fail = delay, depth, fail
        self.running = self.most = self.calls = self.proposed = 0
        self.full = asyncio.Event()  # eight calls are in flight

    async def _call(self, role):
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 8:
            self.full.set()
        try:
            await asyncio.sleep(self.delay() if callable(self.delay) else self.delay)
            if role in self.fail:
                raise ConnectionError(f"the {role} is away")
        finally:
            self.running -= 1

    async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
        await self._call("policy")
        self.proposed += 1
        dice = random.Random(f"{state.question}|{seed}")
        return Proposals(
            tuple(tuple(self._steps(dice, len(state.steps), max_steps)) for _ in range(n)), Usage(1, 10, n)
        )

    def _steps(self, dice, depth, max_steps):
        for at in range(depth + 1, depth + max_steps + 1):
            end = at == self.depth or (at > 1 and dice.random() < 0.1)
            yield Step(
                f"{at}.{dice.randrange(1000):03}", end, str(dice.randrange(4)) if end else None, -dice.random(), 1
            )
            if end:
                return

    async def score(self, states):
        await self._call("verifier")
        texts = ["|".join([state.question, *(step.text for step in state.steps)]) for state in states]
        return [Score((random.Random(text).random(),), usage=Usage(1 if i == 0 else 0)) for i, text in enumerate(texts)]


def reasoner_of(world, strategy, **options):
    options.setdefault("budget", Budget(concurrency=1))
    return create_reasoner(world, world, strategy=strategy, **options)


def thread(name):
    return {"configurable": {"thread_id": name}}


def what(output):
    """What a run found, apart from messages."""
    return {key: output[key] for key in ("answer", "confidence", "stop", "usage", "ranking", "tree")}


async def settled(world):
    """Cancelled calls unwind in a few passes of the loop."""
    for _ in range(20):
        await asyncio.sleep(0)
    return world.running


# Equal trees.


@every_strategy
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_both_drivers_give_the_same_tree_and_result(strategy, concurrency):
    budget = Budget(concurrency=concurrency)
    direct = await search("q", World(), World(), strategy, budget, seed=7)
    output = await reasoner_of(World(), strategy, budget=budget, seed=7).ainvoke({"question": "q"})
    assert Tree.from_data(output["tree"]) == direct.tree
    assert (output["answer"], output["confidence"], output["stop"]) == (direct.answer, direct.confidence, direct.stop)
    assert output["ranking"] == [list(entry) for entry in direct.ranking]
    assert output["usage"]["policy"] == direct.policy_usage.to_data()
    assert output["usage"]["verifier"] == direct.verifier_usage.to_data()
    assert len(direct.tree) > 3


@every_strategy
async def test_both_drivers_give_the_same_tree_with_the_embedded_models(strategy):
    budget = Budget(concurrency=1, max_nodes=24)
    direct = await search("4 5 6 10", "embedded", "embedded", strategy, budget, seed=1)
    reasoner = create_reasoner("embedded", "embedded", strategy=strategy, budget=budget, seed=1)
    output = await reasoner.ainvoke({"question": "4 5 6 10"})
    assert Tree.from_data(output["tree"]) == direct.tree
    assert output["answer"] == direct.answer


async def test_another_seed_gives_another_tree():
    trees = [(await search("q", World(), World(), seed=seed)).tree.to_data()["nodes"] for seed in (0, 0, 1)]
    assert trees[0] == trees[1] != trees[2]


# Ways to call the graph.


@every_strategy
async def test_invoke_works_inside_a_running_loop_and_gives_what_ainvoke_gives(strategy):
    expected = await reasoner_of(World(), strategy).ainvoke({"question": "q"})
    assert what(reasoner_of(World(), strategy).invoke({"question": "q"})) == what(expected)


def test_invoke_works_without_a_loop():
    assert reasoner_of(World(), "beam").invoke({"question": "q"})["stop"] == "done"


async def test_abatch_gives_what_single_runs_give():
    questions = [{"question": f"q{i}"} for i in range(4)]
    reasoner = reasoner_of(World(), BeamSearch(2, 3))
    alone = [await reasoner.ainvoke(question) for question in questions]
    assert [what(out) for out in await reasoner.abatch(questions)] == [what(out) for out in alone]
    assert len({str(out["tree"]) for out in alone}) == 4


async def test_the_question_is_the_last_human_message_and_the_rest_is_context():
    messages = [("system", "be brief"), ("user", "first"), ("ai", "1"), ("user", "second")]
    output = await reasoner_of(World(), "cot").ainvoke({"messages": messages})
    assert output["tree"]["question"] == "second"
    assert [m["role"] for m in output["tree"]["context"]] == ["system", "user", "assistant"]
    last = output["messages"][-1]
    assert [block["type"] for block in last.content] == ["reasoning", "text"]
    assert last.text == output["answer"]
    assert (
        last.usage_metadata["total_tokens"] == output["usage"]["prompt_tokens"] + output["usage"]["completion_tokens"]
    )


def check_events(events, tree, scored):
    by_kind = {kind: [e["node"] for e in events if e["event"] == kind] for kind in ("created", "scored", "finished")}
    assert by_kind["created"] == list(range(1, len(tree["nodes"])))
    assert sorted(by_kind["scored"]) == [n["id"] for n in tree["nodes"] if n["reward"] is not None]
    assert bool(by_kind["scored"]) == scored
    assert len(by_kind["finished"]) == 1
    assert events[-1]["event"] == "finished"


@every_strategy
async def test_a_stream_tells_of_each_node_once(strategy):
    events, tree = [], None
    async for mode, chunk in reasoner_of(World(), strategy).astream(
        {"question": "q"}, stream_mode=["custom", "values"]
    ):
        if mode == "custom":
            events.append(chunk)
        else:
            tree = chunk.get("tree") or tree
    check_events(events, tree, not isinstance(strategy, SelfConsistency))
    in_sync = list(reasoner_of(World(), strategy).stream({"question": "q"}, stream_mode="custom"))
    heard = []
    await search("q", World(), World(), strategy, Budget(concurrency=1), on_event=heard.append)
    assert in_sync == events == heard


async def test_a_stream_tells_of_backtracking():
    policy = ScriptedPolicy({(): ["a", "b"], ("b",): ["b1"], ("a",): ["= 1"]})
    verifier = ScriptedVerifier({"a": 0.6, "b": 0.8, "b1": 0.1, "= 1": 1.0})
    reasoner = create_reasoner(policy, verifier, strategy=DepthFirst(2, 0.5))
    events = [e async for e in reasoner.astream({"question": "q"}, stream_mode="custom")]
    assert [e["event"] for e in events] == [
        "created", "created", "scored", "scored", "created", "scored", "backtracked", "created", "scored", "finished"
    ]  # fmt: skip
    assert [(e["from"], e["node"]) for e in events if e["event"] == "backtracked"] == [(2, 1)]


# Inside another graph.


class Mine(MessagesState):
    notes: Annotated[list[str], operator.add]
    answer: str


def parent_of(reasoner, checkpointer=None):
    async def before(state):
        return {"notes": ["before"], "messages": [HumanMessage("q")]}

    async def after(state):
        return {"notes": [f"after {state['answer']}"]}

    builder = StateGraph(Mine)
    builder.add_node("before", before)
    builder.add_node("reason", reasoner)
    builder.add_node("after", after)
    builder.add_edge(START, "before")
    builder.add_edge("before", "reason")
    builder.add_edge("reason", "after")
    builder.add_edge("after", END)
    return builder.compile(checkpointer=checkpointer)


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["without-checkpointer", "with-checkpointer"])
@pytest.mark.parametrize("own", [None, False], ids=["inherits", "has-none"])
async def test_a_node_of_a_graph_with_other_keys(saver, own):
    alone = await reasoner_of(World(), BeamSearch(2, 3)).ainvoke({"question": "q"})
    graph = parent_of(reasoner_of(World(), BeamSearch(2, 3), checkpointer=own), saver and saver())
    for run in ("one", "two"):
        output = await graph.ainvoke({"notes": ["mine"]}, thread(run))
        assert output["notes"] == ["mine", "before", f"after {alone['answer']}"]
        assert set(output) == {"messages", "notes", "answer"}
        assert [m.type for m in output["messages"]] == ["human", "ai"]


async def test_two_runs_at_once_share_nothing():
    # The same compiled reasoner in parallel branches of one graph, while it also runs on its own.
    world = World(delay=0.002)
    reasoner = reasoner_of(world, BeamSearch(2, 3))
    expected = {q: what(await reasoner_of(World(), BeamSearch(2, 3)).ainvoke({"question": q})) for q in "abc"}
    found = {}

    class Both(MessagesState):
        pass

    def ask(question):
        async def node(state):
            found[question] = await reasoner.ainvoke({"question": question})

        return node

    builder = StateGraph(Both)
    for question in "ab":
        builder.add_node(question, ask(question))
        builder.add_edge(START, question)
    _, found["c"] = await asyncio.gather(
        builder.compile().ainvoke({"messages": []}), reasoner.ainvoke({"question": "c"})
    )
    assert {q: what(out) for q, out in found.items()} == expected
    assert world.most == 3  # one call at a time in each of the three runs


# Checkpoints.


def assert_plain(value, where="state"):
    assert type(value) in (dict, list, str, int, float, bool, type(None)), f"{where} is a {type(value).__name__}"
    for key, inner in value.items() if type(value) is dict else enumerate(value) if type(value) is list else ():
        assert_plain(inner, f"{where}[{key!r}]")


@every_strategy
async def test_state_in_checkpoints_is_plain_json(strategy):
    reasoner = reasoner_of(World(), strategy, checkpointer=InMemorySaver())
    output = await reasoner.ainvoke({"question": "q"}, thread("t"))
    assert_plain(what(output))
    seen = set()
    async for snapshot in reasoner.aget_state_history(thread("t")):
        for key, value in snapshot.values.items():
            if key != "messages":
                assert_plain(value, key)
                seen.add(key)
    assert {"question", "log", "answer", "confidence", "stop", "usage", "ranking"} <= seen
    assert "tree" not in seen  # the log has it all


async def interrupted(make, ticks):
    """Start a run, cancel it after so many passes of the event loop; whether it was cancelled."""
    task = asyncio.create_task(make())
    for _ in range(ticks):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def resume(reasoner, config):
    """The rest of a run that was cut; None if it was already over."""
    state = await reasoner.aget_state(config)
    if "stop" in state.values:
        return None
    return await reasoner.ainvoke(None if state.tasks else {"question": "q"}, config)


async def ticks_of(make):
    """How many passes of the loop a whole run takes."""
    task, ticks = asyncio.create_task(make()), 0
    while not task.done():
        await asyncio.sleep(0)
        ticks += 1
    return ticks


async def cut_and_resume(strategy):
    """The whole result, and the results of runs that were cut at points from start to end and resumed."""
    expected = what(await reasoner_of(World(), strategy).ainvoke({"question": "q"}))
    saver = InMemorySaver()

    def start(name):
        return lambda: reasoner_of(World(), strategy, checkpointer=saver).ainvoke({"question": "q"}, thread(name))

    ticks = await ticks_of(start("whole"))
    found = []
    for cut in range(0, ticks, max(1, ticks // 12)):
        if await interrupted(start(str(cut)), cut):
            output = await resume(reasoner_of(World(), strategy, checkpointer=saver), thread(str(cut)))
            if output is not None:
                found.append(what(output))
    assert len(found) > 5
    return expected, found


@every_strategy
async def test_a_run_cut_anywhere_resumes_to_the_same_result(strategy):
    expected, found = await cut_and_resume(strategy)
    for key in ("answer", "confidence", "ranking", "usage", "tree"):
        assert [out[key] for out in found] == [expected[key]] * len(found)


@every_strategy
@pytest.mark.parametrize("node", ["backtrack", "generate", "verify", "finalize"])
async def test_a_run_paused_before_a_node_goes_on_to_the_same_reason_to_stop(strategy, node):
    expected = await reasoner_of(World(), strategy).ainvoke({"question": "q"})
    reasoner = reasoner_of(World(), strategy, checkpointer=InMemorySaver())
    await reasoner.ainvoke({"question": "q"}, thread("t"), interrupt_before=[node])
    output = await reasoner.ainvoke(None, thread("t"))
    assert (output["stop"], output["answer"]) == (expected["stop"], expected["answer"])


@pytest.mark.parametrize("runs_before", [0, 1])
async def test_a_resumed_run_repeats_at_most_what_was_in_flight(runs_before):
    strategy, whole = BeamSearch(2, 3), World()
    await reasoner_of(whole, strategy).ainvoke({"question": "q"})
    saver, world = InMemorySaver(), World()
    reasoner = reasoner_of(world, strategy, checkpointer=saver)
    for _ in range(runs_before):
        await reasoner.ainvoke({"question": "another"}, thread("t"))
    world.proposed = 0
    task = asyncio.create_task(reasoner.ainvoke({"question": "q"}, thread("t")))
    while world.proposed < whole.proposed - 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    again = World()
    await reasoner_of(again, strategy, checkpointer=saver).ainvoke(None, thread("t"))
    assert 1 <= again.proposed <= 3 < whole.proposed


async def test_a_run_cut_several_times_resumes_from_a_file(tmp_path):
    strategy = BeamSearch(2, 3)
    expected = what(await reasoner_of(World(), strategy).ainvoke({"question": "q"}))
    output, cuts = None, -1
    while output is None and cuts < 30:
        cuts += 1
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
            reasoner = reasoner_of(World(delay=0.02), strategy, checkpointer=saver)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1 + cuts / 20):
                    output = await resume(reasoner, thread("t"))
    assert (output["answer"], output["tree"]) == (expected["answer"], expected["tree"])
    assert cuts


async def test_runs_on_one_thread_one_after_the_other_do_not_share_state():
    reasoner = reasoner_of(World(), BeamSearch(2, 3), checkpointer=InMemorySaver())
    for question in ("a", "b", "b"):
        alone = await reasoner_of(World(), BeamSearch(2, 3)).ainvoke({"question": question})
        output = await reasoner.ainvoke({"question": question}, thread("t"))
        assert output["tree"]["nodes"] == alone["tree"]["nodes"]
        assert (output["answer"], output["usage"]) == (alone["answer"], alone["usage"])


async def test_a_new_question_forgets_an_interrupted_run():
    reasoner = reasoner_of(World(), BeamSearch(2, 3), checkpointer=InMemorySaver())
    assert await interrupted(lambda: reasoner.ainvoke({"question": "a"}, thread("t")), 60)
    alone = await reasoner_of(World(), BeamSearch(2, 3)).ainvoke({"question": "b"})
    assert what(await reasoner.ainvoke({"question": "b"}, thread("t"))) == what(alone)


async def test_bytes_per_node_in_checkpoints_stay_flat(tmp_path):
    async def bytes_per_node(nodes):
        budget = Budget(max_nodes=nodes)
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / f"{nodes}.db")) as saver:
            reasoner = reasoner_of(World(depth=1000), MCTS(nodes, 16), budget=budget, checkpointer=saver)
            output = await reasoner.ainvoke({"question": "q"}, thread("t"))
            assert len(output["tree"]["nodes"]) == pytest.approx(nodes, rel=0.05)
            query = """SELECT (SELECT sum(length(checkpoint) + length(metadata)) FROM checkpoints)
                            + (SELECT sum(length(value)) FROM writes)"""
            async with saver.conn.execute(query) as cursor:
                return (await cursor.fetchone())[0] / nodes

    assert await bytes_per_node(1024) <= 1.3 * await bytes_per_node(256)


# Nothing outlives its run.


async def hanging(stop_by):
    """Start a run whose calls never end, stop it; calls that were in flight, and calls left."""
    world = World(delay=60)
    reasoner = reasoner_of(world, BestOfN(8), budget=Budget(concurrency=8))
    world.samples_per_call = 1
    await stop_by(world, reasoner)
    return world.most, await settled(world)


async def until_running(world):
    await asyncio.wait_for(world.full.wait(), 5)


async def by_cancelling(world, reasoner):
    task = asyncio.create_task(reasoner.ainvoke({"question": "q"}))
    await until_running(world)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_cancelling_search(world, reasoner):
    task = asyncio.create_task(search("q", world, world, BestOfN(8)))
    await until_running(world)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_timeout(world, reasoner):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reasoner.ainvoke({"question": "q"})


async def by_cancelling_the_parent(world, reasoner):
    task = asyncio.create_task(parent_of(reasoner).ainvoke({"notes": []}))
    await until_running(world)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_cancelling_a_stream(world, reasoner):
    async def consume():
        async for _ in reasoner.astream({"question": "q"}, stream_mode="custom"):
            pass

    task = asyncio.create_task(consume())
    await until_running(world)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "stop_by", [by_cancelling, by_cancelling_search, by_timeout, by_cancelling_the_parent, by_cancelling_a_stream]
)
async def test_a_stopped_run_leaves_no_call_behind(stop_by):
    assert await hanging(stop_by) == (8, 0)


@pytest.mark.parametrize("mode", ["custom", "updates"])
async def test_a_stream_left_early_leaves_no_call_behind(mode):
    class FirstIsQuick(World):
        async def _call(self, role):
            self.delay = 60 if self.calls else 0
            await super()._call(role)

    world = FirstIsQuick()
    world.samples_per_call = 1
    reasoner = reasoner_of(world, BestOfN(8), budget=Budget(concurrency=8))
    async with aclosing(reasoner.astream({"question": "q"}, stream_mode=mode)) as stream:
        async for chunk in stream:
            if mode == "custom" or "generate" in chunk:
                break
    assert world.most > 4
    assert await settled(world) == 0


async def test_a_deadline_cancels_what_is_in_flight_and_gives_the_best_so_far():
    class OneHangs(World):
        samples_per_call = 1

        async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
            if self.calls:
                self.delay = 60
            return await super().propose(state, n, max_steps, seed=seed)

        async def score(self, states):
            return [Score((0.5,)) for _ in states]

    for driver in ("search", "graph"):
        world, started = OneHangs(), asyncio.get_running_loop().time()
        budget = Budget(max_seconds=0.2)
        if driver == "search":
            result = await search("q", world, world, BestOfN(3), budget)
            answer, stop = result.answer, result.stop
        else:
            output = await reasoner_of(world, BestOfN(3), budget=budget).ainvoke({"question": "q"})
            answer, stop = output["answer"], output["stop"]
        assert (answer is not None, stop) == (True, "deadline")
        assert asyncio.get_running_loop().time() - started < 1
        assert world.most == 3
        assert await settled(world) == 0


@every_strategy
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_calls_in_flight_never_exceed_the_concurrency(strategy, concurrency):
    for samples_per_call in (None, 1):
        dice = random.Random(0)
        world = World(delay=lambda: dice.random() / 500)  # noqa: B023
        world.samples_per_call = samples_per_call
        await search("q", world, world, strategy, Budget(concurrency=concurrency))
        await reasoner_of(world, strategy, budget=Budget(concurrency=concurrency)).ainvoke({"question": "q"})
        assert world.most <= concurrency
    if isinstance(strategy, BestOfN):
        assert world.most == concurrency


# No barrier.


class OneIsSlow:
    """One candidate's second step, or its first score, hangs until the other three are finished and scored."""

    samples_per_call = 1

    def __init__(self, slow):
        self.slow, self.started, self.scored = slow, 0, 0
        self.others = asyncio.Event()

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        if not state.steps:
            self.started += 1
            return Proposals(((Step(str(self.started)),),))  # fewer steps than asked for: three calls to the end
        first = state.steps[0].text
        if self.slow == "policy" and first == "1":
            await self.others.wait()
        end = len(state.steps) == 2
        return Proposals(((Step(f"{first}.{len(state.steps)}", end, first if end else None),),))

    async def score(self, states):
        for state in states:
            if state.steps[0].text != "1" and state.steps[-1].terminal:
                self.scored += 1
                if self.scored == 3:
                    self.others.set()
        if self.slow == "verifier" and len(states) == 1 and states[0].steps[0].text == "1":
            await self.others.wait()
        return [Score((0.5,)) for _ in states]


@pytest.mark.parametrize(
    ("strategy", "slow"),
    [(BestOfN(4), "policy"), (BestOfN(4), "verifier"), (DVTS(4, 1), "policy")],
    ids=["best_of_n-policy", "best_of_n-verifier", "dvts-policy"],
)
async def test_one_slow_call_holds_nobody_else_up(strategy, slow):
    world = OneIsSlow(slow)
    async with asyncio.timeout(5):
        assert (await search("q", world, world, strategy)).stop == "done"
    world = OneIsSlow(slow)
    async with asyncio.timeout(5):
        output = await create_reasoner(world, world, strategy=strategy).ainvoke({"question": "q"})
    assert len(output["ranking"]) == 4


# Failures.


async def test_a_failed_candidate_is_a_dead_end_that_says_why():
    script = {(): ["a", "b"], ("a",): ConnectionError("line cut"), ("b",): ["= 1"]}
    verifier = ScriptedVerifier({}, 0.5)
    direct = await search("q", ScriptedPolicy(script), verifier, BeamSearch(2, 1), Budget(concurrency=1))
    reasoner = create_reasoner(
        ScriptedPolicy(script), verifier, strategy=BeamSearch(2, 1), budget=Budget(concurrency=1)
    )
    output = await reasoner.ainvoke({"question": "q"})
    assert Tree.from_data(output["tree"]) == direct.tree
    assert "ConnectionError: line cut" in direct.tree.nodes[1].dead
    assert (direct.answer, direct.stop) == ("1", "done")


async def test_a_candidate_that_cannot_be_scored_is_a_dead_end_that_says_why():
    class Picky(World):
        async def score(self, states):
            if len(states[0].steps) == 1:
                raise ValueError("cannot read this")
            return await super().score(states)

    class Alternating(Picky):
        samples_per_call = 1

        async def propose(self, state, n, max_steps=1, *, temperature=None, seed=0):
            self.calls += 1
            steps = (Step("a", True, "1"),) if self.calls == 1 else (Step("b"), Step("c", True, "2"))
            return Proposals((steps,))

    world = Alternating()
    result = await search("q", world, world, BestOfN(2))
    assert result.answer == "2"
    dead = [n for n in result.tree.nodes if n.dead]
    assert [n.step.text for n in dead] == ["a"]
    assert "ValueError: cannot read this" in dead[0].dead


@every_strategy
async def test_a_policy_that_never_works_is_a_policy_error(strategy):
    world = World(fail=["policy"])
    with pytest.raises(PolicyError, match="ConnectionError: the policy is away"):
        await search("q", world, world, strategy)
    with pytest.raises(PolicyError, match="ConnectionError: the policy is away"):
        await reasoner_of(world, strategy).ainvoke({"question": "q"})


@every_strategy
async def test_a_verifier_that_never_works_is_a_verifier_error(strategy):
    world = World(fail=["verifier"])
    if isinstance(strategy, SelfConsistency):
        assert (await search("q", world, world, strategy)).answer  # it asks no verifier
        return
    with pytest.raises(VerifierError, match="ConnectionError: the verifier is away"):
        await search("q", world, world, strategy)
    with pytest.raises(VerifierError, match="ConnectionError: the verifier is away"):
        await reasoner_of(world, strategy).ainvoke({"question": "q"})


async def test_an_empty_reply_is_no_dead_end_while_other_samples_bring_something():
    class EmptyFirst:
        samples_per_call = 1
        calls = 0

        async def propose(self, state, n, max_steps=1, *, temperature=None):
            self.calls += 1
            return Proposals(() if self.calls == 1 else ((Step("= 1", True, "1"),),))

    result = await search("q", EmptyFirst(), ScriptedVerifier({}, 0.5), BestOfN(2))
    assert result.answer == "1"
    assert result.tree.nodes[0].dead is None


async def test_a_question_of_one_turn_does_not_stand_in_for_the_messages_of_the_next():
    reasoner = create_reasoner("embedded", strategy="cot", checkpointer=InMemorySaver())
    first = await reasoner.ainvoke({"question": "4 5 6 10"}, thread("turns"))
    second = await reasoner.ainvoke({"messages": [("user", "1 2 3")]}, thread("turns"))
    assert (first["tree"]["question"], second["tree"]["question"]) == ("4 5 6 10", "1 2 3")
