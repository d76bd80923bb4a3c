"""Steps that call tools: on every branch where a tool is pure, on the chosen path alone where it is not."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from o1_reason_openai.chat import OpenAIChat
from o1_reason_openai.endpoint import Endpoint
from openai_server import Request, Server
from talker import Talker

from o1_reason import Ask, BestOfN, Budget, ConfigurationError, Score, State, Step, create_reasoner, search
from o1_reason.calls import UNKNOWN
from o1_reason.driver import REFUSED
from o1_reason.tool_steps import Tool, ToolPolicy, as_tool, calculator, pure, python_tool
from o1_reason.tool_steps.builtin import calculate
from o1_reason.tree import Tree

QUESTION = "Buy the cheaper one, tea or coffee."
PRICES = {"tea": 3, "coffee": 5}
Turn = str | tuple[str, str]  # what the model says, or a tool and its argument


class Shop:
    """Two tools and what they have been asked."""

    def __init__(self) -> None:
        self.looked: list[str] = []
        self.bought: list[str] = []

    @property
    def tools(self) -> list[Any]:
        def price(item: str) -> str:
            """The price of an item, in euros."""
            self.looked.append(item)
            return str(PRICES[item])

        async def buy(item: str) -> str:
            """Buy an item; it is paid for at once."""
            self.bought.append(item)
            return f"bought {item}"

        return [pure(price), buy]


def shopper(messages: Sequence[Any], i: int) -> Turn:
    """Candidate i: looks a price up, buys what it has looked up, and says so."""
    told = [m["content"] for m in messages if m["role"] == "tool"]
    item = ("tea", "coffee")[i % 2]
    if not told:
        return "price", item
    if told[-1].isdigit():
        return "buy", next(json.loads(c["function"]["arguments"])["item"] for m in messages
                           for c in m.get("tool_calls") or ())  # fmt: skip
    return "Answer: nothing" if told[-1] in (REFUSED, "too dear") else f"Answer: {told[-1].split()[-1]}"


def model(rule: Callable[[Sequence[Any], int], Turn]) -> Any:
    """A server whose replies are by `rule`; tool calls come in pieces."""

    async def handler(request: Request) -> None:
        await request.begin()
        for i in range(request.body.get("n", 1)):
            turn = rule(request.body["messages"], i)
            if isinstance(turn, str):
                await request.token(turn, i, "stop", 1)
                continue
            arguments = json.dumps({"item": turn[1]}) if turn[1].isalpha() else turn[1]
            pieces = [
                {"id": f"c{i}", "function": {"name": turn[0], "arguments": ""}},
                {"function": {"arguments": arguments[:5]}},
                {"function": {"arguments": arguments[5:]}},
            ]
            for k, piece in enumerate(pieces):
                delta = {"tool_calls": [{"index": 0, "type": "function", **piece}]}
                finish = "tool_calls" if k == 2 else None
                await request.event({"choices": [{"index": i, "delta": delta, "finish_reason": finish}],
                                     "usage": {"prompt_tokens": 10, "completion_tokens": k + 1}})  # fmt: skip
        await request.end()

    return handler


class Thrifty:
    """Likes tea, by its price; what it was shown, it keeps."""

    identity = "thrifty"

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def score(self, states: Sequence[State]) -> list[Score]:
        self.seen += [state.text for state in states]
        return [Score((0.9 if "tea" in state.text else 0.2,)) for state in states]


def policy(server: Server, tools: Sequence[Any], **settings: Any) -> ToolPolicy:
    return ToolPolicy(OpenAIChat("m", Endpoint(server.url, patience=5), prefix="none"), tools, **settings)


async def test_pure_tools_run_on_all_branches_and_others_once_on_the_chosen_one() -> None:
    shop, verifier = Shop(), Thrifty()
    async with Server(model(shopper)) as server:
        result = await search(QUESTION, policy(server, shop.tools), verifier, BestOfN(4))
    assert set(shop.looked) == {"tea", "coffee"}
    assert shop.bought == ["tea"]
    assert result.answer == "tea"
    assert result.text == 'price({"item": "tea"}) -> 3\nbuy({"item": "tea"}) -> bought tea\nAnswer: tea'
    assert 'price({"item": "coffee"}) -> 5\nbuy({"item": "coffee"})' in verifier.seen, "judged before it has happened"
    assert result.policy_usage.calls == len(server.requests)
    assert Tree.from_data(json.loads(json.dumps(result.tree.to_data()))) == result.tree


async def test_the_model_is_shown_calls_and_results_as_it_made_them() -> None:
    shop = Shop()
    async with Server(model(shopper)) as server:
        await search(QUESTION, policy(server, shop.tools), Thrifty(), BestOfN(2))
        last = server.requests[-1].body
    assert [m["role"] for m in last["messages"]] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    first, second = last["messages"][2], last["messages"][4]
    assert first["tool_calls"][0]["function"] == {"name": "price", "arguments": '{"item": "tea"}'}
    assert last["messages"][3]["tool_call_id"] == first["tool_calls"][0]["id"]
    assert last["messages"][5] == {"role": "tool", "tool_call_id": second["tool_calls"][0]["id"],
                                   "content": "bought tea"}  # fmt: skip
    assert {t["function"]["name"] for t in last["tools"]} == {"price", "buy"}


async def test_what_a_person_refuses_does_not_run_and_the_model_is_told() -> None:
    shop, asked = Shop(), []

    async def approve(state: State) -> bool:
        asked.append([call.name for call in state.steps[-1].calls])
        return False

    async with Server(model(shopper)) as server:
        result = await search(QUESTION, policy(server, shop.tools), Thrifty(), BestOfN(2), approve=approve)
    assert asked == [["buy"]]
    assert shop.bought == []
    assert result.answer == "nothing"


@pytest.mark.parametrize(
    ("decision", "bought", "answer"), [("go on", ["tea"], "tea"), ({"refuse": "too dear"}, [], "nothing")]
)
async def test_the_graph_asks_before_a_tool_with_effects(decision: Any, bought: list[str], answer: str) -> None:
    shop = Shop()
    thread: Any = {"configurable": {"thread_id": "1"}}
    async with Server(model(shopper)) as server:
        graph = create_reasoner(
            policy(server, shop.tools),
            Thrifty(),
            strategy=BestOfN(2),
            ask=Ask(tools=True),
            checkpointer=InMemorySaver(),
        )
        output = await graph.ainvoke({"question": QUESTION}, thread)
        shown = output["__interrupt__"][0].value
        assert (shown["why"], shown["calls"]) == ("tools", [{"name": "buy", "arguments": '{"item": "tea"}'}])
        assert shop.bought == []
        output = await graph.ainvoke(Command(resume=decision), thread)
    assert (shop.bought, output["answer"]) == (bought, answer)


async def test_unasked_the_graph_does_what_the_bare_search_does() -> None:
    shop = Shop()
    async with Server(model(shopper)) as server:
        graph = create_reasoner(policy(server, shop.tools), Thrifty(), strategy=BestOfN(2))
        output = await graph.ainvoke({"question": QUESTION})
        alone = await search(QUESTION, policy(server, Shop().tools), Thrifty(), BestOfN(2))
    assert shop.bought == ["tea"]
    assert output["tree"] == alone.tree.to_data()
    assert output["usage"]["calls"] == alone.usage.calls


async def test_equal_calls_vote_together_before_any_of_them_has_run() -> None:
    shop = Shop()

    def hasty(messages: Sequence[Any], i: int) -> Turn:
        return shopper(messages, i) if messages[-1]["role"] == "tool" else ("buy", ("coffee", "tea", "tea")[i % 3])

    async with Server(model(hasty)) as server:
        result = await search(QUESTION, policy(server, shop.tools), None, BestOfN(3, vote="majority"))
    assert shop.bought == ["tea"]
    assert result.answer == "tea"


async def test_a_tool_that_had_begun_when_the_program_died_does_not_run_again(tmp_path: Path) -> None:
    shop, dying = Shop(), asyncio.Event()

    async def stuck(arguments: Mapping[str, Any]) -> str:
        shop.bought.append(arguments["item"])
        dying.set()
        await asyncio.sleep(60)
        return "never said"

    price, buy = map(as_tool, shop.tools)
    slow = Tool(buy.name, buy.description, buy.parameters, stuck)
    ledger = tmp_path / "calls.sqlite"

    def told(messages: Sequence[Any], i: int) -> Turn:
        return "Answer: unknown" if messages[-1].get("content") == UNKNOWN else shopper(messages, i)

    async with Server(model(told)) as server:
        ask = asyncio.ensure_future(
            search(QUESTION, policy(server, [price, slow]), Thrifty(), BestOfN(2), ledger=ledger)
        )
        await dying.wait()
        ask.cancel()
        await asyncio.gather(ask, return_exceptions=True)
        paid = len(server.requests)
        result = await search(QUESTION, policy(server, [price, buy]), Thrifty(), BestOfN(2), ledger=ledger)
        assert shop.bought == ["tea"]
        assert result.answer == "unknown"
        assert len(server.requests) > paid
        before = len(server.requests)
        again = await search(QUESTION, policy(server, [price, buy]), Thrifty(), BestOfN(2), ledger=ledger)
        assert (again.answer, len(server.requests), shop.bought) == ("unknown", before, ["tea"])


async def test_with_a_ledger_what_ran_is_not_run_again(tmp_path: Path) -> None:
    shop = Shop()
    async with Server(model(shopper)) as server:
        for _ in range(2):
            result = await search(
                QUESTION, policy(server, shop.tools), Thrifty(), BestOfN(2), ledger=tmp_path / "calls.sqlite"
            )
            assert result.answer == "tea"
    assert shop.bought == ["tea"]


@pytest.mark.parametrize(
    ("turn", "said"),
    [(("sell", "tea"), "there is no tool 'sell'; there are: price, buy"), (("price", "{broken"), "no JSON object"),
     (("price", "gold"), "KeyError"), (("slow", "tea"), "no result within 0.05 seconds")],
)  # fmt: skip
async def test_what_goes_wrong_in_a_call_is_told_to_the_model(turn: Turn, said: str) -> None:
    async def sleep(arguments: Mapping[str, Any]) -> str:
        await asyncio.sleep(60)
        return ""

    def once(messages: Sequence[Any], i: int) -> Turn:
        return turn if messages[-1]["role"] != "tool" else f"Answer: {messages[-1]['content']}"

    slow = [Tool("slow", "Sleeps.", {}, sleep, pure=True)] if turn[0] == "slow" else []
    async with Server(model(once)) as server:
        result = await search(QUESTION, policy(server, [*Shop().tools, *slow], tool_seconds=0.05), None, BestOfN(1))
    assert said in (result.answer or "")


async def test_a_langchain_model_calls_tools_too() -> None:
    shop: list[int] = []

    @tool
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        shop.append(a + b)
        return f"Answer: {a + b}"

    talker = Talker()
    result = await search("add 2 and 40", ToolPolicy(talker, [pure(add)]), None, BestOfN(1))
    assert shop == [42]
    assert result.text.startswith('add({"a": 2, "b": 40}) -> Answer: 42')
    assert result.policy_usage.calls == 2


async def test_a_search_that_runs_tools_for_ever_ends_with_its_nodes() -> None:
    shop = Shop()

    def greedy(messages: Sequence[Any], i: int) -> Turn:
        return "buy", "tea"

    async with Server(model(greedy)) as server:
        result = await search(QUESTION, policy(server, shop.tools), None, BestOfN(1), Budget(max_nodes=5))
    assert result.answer is None
    assert result.stop == "budget"
    assert len(shop.bought) == 5


def test_tools_are_taken_to_have_effects_unless_they_say_otherwise() -> None:
    @tool
    def look(item: str) -> str:
        """Look."""
        return item

    assert not as_tool(look).pure
    assert pure(look).pure
    look.metadata = {"pure": True}
    assert as_tool(look).pure
    assert as_tool(look).spec["function"]["parameters"]["required"] == ["item"]


@pytest.mark.parametrize("tools", [[], [calculator(), calculator()], [3], [lambda x: x]])
def test_tools_that_cannot_work_are_refused(tools: Any) -> None:
    with pytest.raises(ConfigurationError):
        ToolPolicy(Talker(), tools)


def test_a_policy_without_a_chat_cannot_call_tools() -> None:
    with pytest.raises(ConfigurationError, match="chat model"):
        ToolPolicy("embedded", [calculator()])


def test_a_step_with_calls_survives_plain_data_and_the_identity_knows_the_tools() -> None:
    one, two = ToolPolicy(Talker(), [calculator()]), ToolPolicy(Talker(), [calculator(), *Shop().tools])
    assert one.identity != two.identity
    assert not Step("x").pending


# Built-in tools.

numbers = st.integers(-50, 50)
operations = "({0[0]} {0[1]} {0[2]})".format
terms = st.recursive(
    numbers.map(str), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(operations), max_leaves=6
)


@given(terms)
def test_the_calculator_is_exact(expression: str) -> None:
    import re

    try:
        right = eval(re.sub(r"(\d+)", r"Fraction(\1)", expression), {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="cannot be calculated"):
            calculate(expression)
    else:
        assert Fraction(calculate(expression).partition(" = ")[0]) == right


@pytest.mark.parametrize(
    "bad", ["9**9**9", "2**2000", "factorial(5000)", "__import__('os')", "(1).real", "1 < 2", "'a' * 9", "", "1 +",
            "True", "2**1000 * 2**1000 * 2**1000", "f(2)", "x", "(-8) ** 0.5", "9" * 5000, "1" + "+1" * 5000],
)  # fmt: skip
def test_the_calculator_refuses_what_is_no_arithmetic_or_too_much(bad: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        calculate(bad)


def test_the_calculator_reads_what_people_write() -> None:
    assert [calculate(text) for text in ("2^10", " (3+4)*2/7 ", "1/3", "sqrt(2)", "gcd(12, 18)", "-pi")] == [
        "1024", "2", "1/3 = 0.3333333333", str(2**0.5), "6", "-3.141592653589793",
    ]  # fmt: skip


async def test_python_runs_in_a_sandbox_and_tells_what_it_printed_or_how_it_failed() -> None:
    python = python_tool()
    try:
        assert await python.run({"code": "print(sum(range(10)))"}) == "45"
    except ConfigurationError as error:
        pytest.skip(str(error))
    assert "ZeroDivisionError" in await python.run({"code": "print(1/0)"})
    assert "printed nothing" in await python.run({"code": "1 + 1"})
