"""The embedded policy behind real servers: as good as in process, paid as the server counts, prefixes reused.

Which server: transformers serve in every run, vLLM with ``make test-vllm``, llama.cpp with ``make test-llamacpp``.
"""

import asyncio
import json
import math
import re
import urllib.request
from collections.abc import Sequence
from typing import Any

import pytest
from integration import servers
from integration.puzzles import TEST
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier, RuleVerifier
from o1_reason_embedded.puzzle import expression, parse, parse_step
from o1_reason_langchain import LangChainChat
from o1_reason_openai import Endpoint, OpenAIChat

from o1_reason import BeamSearch, BestOfN, Budget, ChainOfThought, Score, State, Usage, search
from o1_reason.chat_policy import ChatPolicy


def question(numbers: tuple[int, ...]) -> str:
    """As the model was trained to see it."""
    return f"{' '.join(map(str, numbers))} -> 24"


def solved(state: State) -> str | None:
    """The expression that a finished trace amounts to."""
    move = parse_step(state.steps[-1].text)
    if move is None or len(move.left) > 1:
        return None
    return expression(parse(state.question).numbers, state.steps) or None


def policy(chat: Any) -> ChatPolicy:
    return ChatPolicy(
        chat, mode="continue", separator="\n", instructions="", temperature=1.0, step_tokens=16, solution_tokens=40,
        extract=solved,
    )  # fmt: skip


def over_http(url: str, **settings: Any) -> ChatPolicy:
    return policy(OpenAIChat(servers.MODEL, Endpoint(url), **{"prefix": "raw", "template": "plain", **settings}))


def name(request: pytest.FixtureRequest) -> str:
    return request.node.callspec.params["policy_server"]


async def right(numbers: tuple[int, ...], tried: Any, strategy: Any, seed: int = 0) -> bool:
    result = await search(question(numbers), tried, EmbeddedVerifier(), strategy, seed=seed)
    if result.node is None:
        return False
    (score,) = await RuleVerifier().score([result.tree.state(result.node)])
    return score.rewards[-1] == 1.0


async def test_greedy_traces_are_those_of_the_process(policy_server: str) -> None:
    tried = over_http(policy_server)
    await tried.propose(State(question(TEST[10])), 1)  # finds out what the server refuses
    for numbers in TEST[:10]:
        here = await search(question(numbers), EmbeddedPolicy(), None, ChainOfThought())
        there = await search(question(numbers), tried, None, ChainOfThought())
        assert there.text == here.text
        assert there.answer == here.answer
        ended = Usage(completion_tokens=1)  # servers count the end of the text as a token
        assert there.usage == here.usage + ended


async def test_puzzle_accuracy_is_that_of_the_process(policy_server: str, request: pytest.FixtureRequest) -> None:
    """Best of 8 by the reward model: the difference is within three standard errors of chance."""
    puzzles = TEST[:12] if name(request) == "transformers_serve" else TEST
    tried = over_http(policy_server)
    there = [await right(numbers, tried, BestOfN(8), seed) for seed, numbers in enumerate(puzzles)]
    here = [await right(numbers, EmbeddedPolicy(), BestOfN(8), seed) for seed, numbers in enumerate(puzzles)]
    p = (sum(here) + sum(there)) / (2 * len(puzzles))
    error = math.sqrt(2 * p * (1 - p) / len(puzzles))
    assert abs(sum(there) - sum(here)) / len(puzzles) <= 3 * error + 1e-9
    assert sum(there) > 0.5 * len(puzzles)


async def test_step_search_over_http_beats_greedy(policy_server: str, request: pytest.FixtureRequest) -> None:
    puzzles = TEST[:6] if name(request) == "transformers_serve" else TEST[:50]
    tried = over_http(policy_server)
    found = [await right(numbers, tried, BeamSearch(4, 4), seed) for seed, numbers in enumerate(puzzles)]
    greedy = [await right(numbers, EmbeddedPolicy(), ChainOfThought()) for numbers in puzzles]
    assert sum(found) > sum(greedy)


async def test_the_probe_tells_the_servers_apart(policy_server: str, request: pytest.FixtureRequest) -> None:
    chat = OpenAIChat(servers.MODEL, Endpoint(policy_server))
    continues = await chat.continues()
    expected = {"transformers_serve": "none", "vllm_policy": "continue", "llama_server": "trailing"}[name(request)]
    assert chat.prefix == expected
    assert continues == (expected != "none")


def prefix_of(server: str) -> str:
    return {"vllm_policy": "continue"}.get(server, "trailing")  # the exported template closes no turn


async def test_the_assistants_text_is_continued_in_chat_as_in_raw_completions(
    policy_server: str, request: pytest.FixtureRequest
) -> None:
    chatting = over_http(policy_server, prefix=prefix_of(name(request)), template=None)
    for numbers in TEST[:3]:
        raw = await search(question(numbers), over_http(policy_server), None, ChainOfThought(max_depth=8))
        state = State(question(numbers), raw.tree.state(raw.node or 0).steps[:1])
        for tried in (chatting, over_http(policy_server)):
            proposals = await tried.propose(state, 1, 8, temperature=0.0)
            assert proposals.candidates[0][-1].answer == raw.answer


async def test_the_same_search_with_both_adapters(policy_server: str, request: pytest.FixtureRequest) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    prefix = prefix_of(name(request))
    # What llama.cpp has cached changes last digits of log-probabilities, and a stream has one token more of them.
    extra = {"cache_prompt": False, "id_slot": 0} if name(request) == "llama_server" else {}
    ours = OpenAIChat(
        servers.MODEL, Endpoint(policy_server, concurrency=1), prefix=prefix, n=False, stream=False, extra=extra
    )
    model = langchain_openai.ChatOpenAI(
        model=servers.MODEL, base_url=policy_server, api_key="none", max_retries=0, extra_body=extra or None
    )
    theirs = LangChainChat(model, prefix=prefix, concurrency=1)
    trees = []
    for chat in (ours, theirs):
        result = await search(
            question(TEST[3]), policy(chat), EmbeddedVerifier(), BeamSearch(2, 2), Budget(concurrency=1), seed=5
        )
        trees.append(json.dumps(result.tree.to_data(), sort_keys=True))
        usage = result.policy_usage
        trees[-1] += f"{usage.calls} {usage.prompt_tokens} {usage.completion_tokens}"
    assert trees[0] == trees[1]
    assert len(trees[0]) > 1000


# What the servers count themselves.

COUNTERS = {
    "vllm_policy": ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    "llama_server": ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
}


def metrics(url: str, counter: str) -> int:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics") as reply:
        text = reply.read().decode()
    return round(sum(float(n) for n in re.findall(rf"^{re.escape(counter)}(?:{{.*?}})? (\S+)$", text, re.MULTILINE)))


def counted(url: str, server: str) -> tuple[int, ...]:
    return tuple(metrics(url, counter) for counter in COUNTERS[server])


@pytest.mark.vllm
async def test_usage_is_what_vllm_counts_cancelled_calls_included(vllm_policy: str) -> None:
    before = counted(vllm_policy, "vllm_policy")
    tried = over_http(vllm_policy, n=False)  # with n in one request vLLM bills the prompt once and counts it n times
    total = [0, 0]
    slow = over_http(vllm_policy, extra={"min_tokens": 400, "ignore_eos": True}, n=False)
    slow.solution_tokens = 900
    for run, budget in ((tried, Budget()), (slow, Budget(max_seconds=1.0))):
        result = await search(question(TEST[5]), run, EmbeddedVerifier(), BestOfN(8), budget)
        total[0] += result.policy_usage.prompt_tokens
        total[1] += result.policy_usage.completion_tokens
    await asyncio.sleep(1.0)  # until the aborted requests have left the batch
    after = counted(vllm_policy, "vllm_policy")
    assert result.stop == "deadline"
    assert after[0] - before[0] == total[0]
    unseen = after[1] - before[1] - total[1]  # what vLLM made, and we had not read, when we hung up: part of a second
    assert 0 <= unseen <= 0.25 * total[1]


@pytest.mark.llamacpp
async def test_usage_is_what_llama_cpp_counts(llama_server: str) -> None:
    before = counted(llama_server, "llama_server")
    tried = over_http(llama_server)
    result = await search(question(TEST[7]), tried, EmbeddedVerifier(), BestOfN(8))
    after = counted(llama_server, "llama_server")
    assert after[1] - before[1] == result.policy_usage.completion_tokens
    read = after[0] - before[0]  # without what was in its cache
    assert read <= result.policy_usage.prompt_tokens


# Prefix caches, by what the servers say that they have computed.

LONG = "\n".join(question(numbers) for numbers in TEST)  # 700 tokens, which the model makes nothing of


async def computed_per_token(url: str, server: str, **settings: Any) -> float:
    """Prompt tokens that the server computed, for each token of the tree, in a search of three levels whose steps are
    64 tokens long. Without a cache it would be about eight."""
    extra = {"ignore_eos": True, "min_tokens": 64}
    tried = over_http(url, extra=extra, **settings)
    tried.separator, tried.step_tokens = "never", 64
    tried.extract = lambda state: None
    before = computed(url, server)
    result = await search(LONG, tried, Longest(), BeamSearch(2, 4, max_depth=3), Budget(concurrency=1))
    after = computed(url, server)
    expanded = sum(1 for node in result.tree.nodes if node.children)
    steps = sum(node.step.tokens for node in result.tree.nodes if node.step is not None)
    asked = result.policy_usage.prompt_tokens / expanded
    assert expanded == 5 and steps == 64 * (len(result.tree) - 1), "the search is what the doc says"
    assert asked > 700
    return (after - before) / (700 + steps)


def computed(url: str, server: str) -> int:
    """Prompt tokens that the server has computed since it started: all, less those it had in its cache."""
    if server == "llama_server":
        return metrics(url, "llamacpp:prompt_tokens_total")
    return metrics(url, "vllm:prefix_cache_queries_total") - metrics(url, "vllm:prefix_cache_hits_total")


class Longest:
    """Any order will do: what counts is which prompts are sent."""

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        return [Score((1 / (1 + len(state.text)),)) for state in states]


@pytest.mark.vllm
@pytest.mark.parametrize("settings", [{}, {"prefix": "continue", "template": None}], ids=["raw", "chat"])
async def test_vllm_computes_each_token_of_the_tree_at_most_once(vllm_policy: str, settings: dict[str, Any]) -> None:
    assert await computed_per_token(vllm_policy, "vllm_policy", **settings) <= 1.1


@pytest.mark.llamacpp
async def test_llama_cpp_computes_each_token_of_the_tree_at_most_once(llama_server: str) -> None:
    assert await computed_per_token(llama_server, "llama_server") <= 1.1
