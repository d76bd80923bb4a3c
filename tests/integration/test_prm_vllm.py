"""Process reward models behind real vLLM score as they do in process: the embedded one through pooling, and the
embedded policy, read at its next token, through scoring and completions."""

import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from integration import servers
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier
from o1_reason_embedded import vocab as v
from o1_reason_embedded.export import Format, export
from o1_reason_embedded.policy import prefix_of
from o1_reason_embedded.runtime import Cache, decoder
from o1_reason_openai.endpoint import Endpoint
from o1_reason_openai.prm import RemotePRM
from o1_reason_openai.prm_formats import PRMFormat

from o1_reason import Budget, ConfigurationError, State, Step, Usage, VerifierError, search
from o1_reason.testing import check_verifier

pytestmark = pytest.mark.vllm

# A question is its numbers, the target 24; a step ends with ")", and the token at its end is ")\n".
CLASSES = PRMFormat(name="classes", head="{question} -> 24\n", mark="\n", mark_ids=(v.CLOSE,), reads="classes")
LABELS = replace(CLASSES, name="labels", reads="labels", labels=(v.NUMBER_0 + 10, v.NUMBER_0 + 5))
QUESTIONS = ["4 6 8", "4 5 6 10", "1 2 3 4 5"]


@pytest.fixture(scope="module")
def vllm_prm_tokens(tmp_path_factory):
    """The reward model once more, with a row for each token."""
    folder = tmp_path_factory.mktemp("tokens") / servers.MODEL
    export(Format.hf_prm, folder)
    flags = ["--runner", "pooling", "--pooler-config", '{"pooling_type": "ALL"}']
    with servers.vllm_server(folder, *flags) as url:
        yield url


def remote(url, form, **settings):
    return RemotePRM(servers.MODEL, Endpoint(url), format=form, **settings)


async def some_states():
    """Three questions, five candidates each, after each of their steps."""
    found = []
    for question in QUESTIONS:
        for steps in (await EmbeddedPolicy().propose(State(question), 5, 8, seed=0)).candidates:
            found += [State(question, steps[: i + 1]) for i in range(len(steps))]
    return found


def shares(state):
    """P(10) against P(5) as the policy's next token after each step, in process."""
    model = decoder(EmbeddedPolicy().weights)
    found = []
    for i in range(1, len(state.steps) + 1):
        ids = prefix_of(State(state.question, state.steps[:i])).ids
        good, bad = model.logits(model.forward(np.array([ids]), Cache(model.shape, 1, len(ids))))[0, -1, LABELS.labels]
        found.append(1 / (1 + np.exp(bad - good)))
    return found


def total(scores):
    return sum((score.usage for score in scores), Usage())


def metric(url, name):
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10) as reply:
        lines = [line for line in reply.read().decode().splitlines() if line.startswith((name + "{", name + " "))]
    return sum(float(line.split()[-1]) for line in lines)


def close(one, other):
    return [score.rewards for score in one] == [pytest.approx(list(rewards), abs=1e-5) for rewards in other]


async def test_pooling_gives_the_scores_of_the_model_in_process_in_one_request(vllm_prm):
    states = await some_states()
    here, there = await EmbeddedVerifier().score(states), await remote(vllm_prm, CLASSES).score(states)
    assert len(states) > 40
    assert {len(state.steps) for state in states} == {1, 2, 3, 4}
    assert close(there, [score.rewards for score in here])
    assert total(there) == total(here)
    await check_verifier(remote(vllm_prm, CLASSES), states[:6])


async def test_a_row_for_each_token_gives_them_too_and_marks_are_put_by_id(vllm_prm_tokens):
    states = await some_states()
    here = await EmbeddedVerifier().score(states)
    form = replace(CLASSES, mark=")\n", rows="tokens")
    there = await remote(vllm_prm_tokens, form).score(states)
    assert close(there, [score.rewards for score in here])
    pieces = {step.text for state in states for step in state.steps} | set(QUESTIONS)
    assert total(there) == total(here) + Usage(calls=len(pieces))  # each was tokenized once
    own = remote(vllm_prm_tokens, form, tokenize=lambda text, special: v.encode(text), step_tokens=10)
    assert total(await own.score(states)) == total(here)
    bound = own.bound(states[0], 4, 2)  # of the prompt's 7 tokens, a step's 10, and twice 10 more
    assert 4 * (7 + 10 + 2 * 10) <= bound.prompt_tokens <= 1.5 * 4 * (7 + 10 + 2 * 10)


@pytest.mark.parametrize("route", ["generative_scoring", "completions"])
async def test_labels_weigh_what_the_model_in_process_weighs(vllm_policy, route):
    states = await some_states()
    before = metric(vllm_policy, "vllm:prompt_tokens_total")
    scores = await remote(vllm_policy, LABELS, route=route).score(states)
    assert close(scores, [shares(state) for state in states])
    spread = [reward for score in scores for reward in score.rewards]
    assert min(spread) < 0.1 and max(spread) > 0.9
    prompts = {tuple(prefix_of(state).ids) for state in states}
    usage = Usage(1, sum(map(len, prompts)), len(prompts))
    asked = total(scores).calls - 1  # how long a prompt may be, and how long some are that may be too long
    assert total(scores) == usage + Usage(calls=asked)
    assert asked == 0 or route == "generative_scoring"
    assert metric(vllm_policy, "vllm:prompt_tokens_total") - before == usage.prompt_tokens


async def test_what_was_scored_is_not_scored_again_and_its_tokens_are_in_the_servers_cache(vllm_policy):
    (path,) = (await EmbeddedPolicy(temperature=0).propose(State("2 3 5 7 9"), 1, 8)).candidates
    prm = remote(vllm_policy, LABELS, route="completions")
    three, four = (State("2 3 5 7 9", path[:i]) for i in (3, 4))
    first = await prm.score([three])
    assert total(first).completion_tokens == 3
    hits = metric(vllm_policy, "vllm:prefix_cache_hits_total")
    second = await prm.score([four])
    assert total(second) == Usage(1, len(prefix_of(four).ids), 1)
    assert second[0].rewards[:3] == first[0].rewards
    assert metric(vllm_policy, "vllm:prefix_cache_hits_total") - hits == 32  # a block of the three steps' 38 tokens
    assert total(await prm.score([three, four])) == Usage()
    forgetful = remote(vllm_policy, LABELS, route="completions", memory=1)
    await forgetful.score([three])
    assert total(await forgetful.score([four])).completion_tokens == 3  # the newest of three was kept
    assert (await forgetful.score([three]))[0].rewards == pytest.approx(first[0].rewards, abs=1e-6)


async def test_a_search_goes_as_it_goes_with_the_model_in_process(vllm_prm, vllm_policy):
    def paths(result):
        return sorted((result.tree.state(node.id).text, round(node.reward, 4)) for node in result.tree.nodes[1:])

    budget = Budget(concurrency=1)
    prm = remote(vllm_prm, CLASSES)
    here, there = [await search("4 5 6 10", "embedded", by, "beam", budget, seed=5) for by in ("embedded", prm)]
    assert (there.answer, there.usage) == (here.answer, here.usage)
    assert paths(there) == paths(here)
    labels = await search("4 5 6 10", "embedded", remote(vllm_policy, LABELS), "beam", budget, seed=5)
    scored = sum(node.reward is not None for node in labels.tree.nodes[1:])
    assert labels.verifier_usage.completion_tokens == scored  # each node once, whatever its depth


async def test_a_path_that_does_not_fit_is_refused_where_the_server_would_cut_it(vllm_policy):
    endpoint = Endpoint(vllm_policy)
    context = (await endpoint.post("/tokenize", {"model": servers.MODEL, "prompt": "24"}))["max_model_len"]
    long = State("4 5 6 10", (Step("4 + 6 = 10 (left: 5 10 10)"),) * (context // 10 + 1))
    size = len(v.encode("4 5 6 10 -> 24\n")) + 10 * len(long.steps)
    text = LABELS.text(*LABELS.clean(long.question, long.steps))
    body = {"model": servers.MODEL, "query": "", "items": [text], "label_token_ids": list(LABELS.labels)}
    reply = await endpoint.post("/generative_scoring", body)
    assert reply["usage"]["prompt_tokens"] == context - 1 < size  # and the end of the last step is gone
    prm = remote(vllm_policy, LABELS)
    with pytest.raises(VerifierError, match=rf"a path of {size} tokens .* context of {context}"):
        await prm.score([long])
    assert prm.context == context


async def test_a_step_that_holds_a_mark_is_no_two_steps(vllm_prm):
    two = State("4 5 6 10", (Step("4 + 6 = 10 (left: 5 10 10)\n10 + 10 = 20 (left: 5 20)"),))
    with pytest.raises(VerifierError, match="1 steps, but 2 scores"):
        await remote(vllm_prm, CLASSES).score([two])
    (score,) = await remote(vllm_prm, replace(CLASSES, reserved=(")\n",))).score([two])
    assert len(score.rewards) == 1


async def test_the_wrong_server_and_the_wrong_rows_are_named(vllm_prm, vllm_policy):
    state = State("4 5 6 10", (Step("4 + 6 = 10 (left: 5 10 10)"),))
    with pytest.raises(ConfigurationError, match="served by vLLM with --runner pooling"):
        await remote(vllm_policy, CLASSES).score([state])
    with pytest.raises(ConfigurationError, match="a model served as a generator"):
        await remote(vllm_prm, LABELS, context=999).score([state])
    with pytest.raises(VerifierError, match=r"17 tokens, but 1 rows.*\"ALL\""):
        await remote(vllm_prm, replace(CLASSES, mark=")\n", rows="tokens")).score([state])
