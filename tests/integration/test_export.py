"""The exported models behind real servers answer as they do in process.

What the servers are known for, seen with these models (transformers serve 5.24, vLLM 0.32.0, llama.cpp as in
llama-cpp-python 0.3.36). Where a line names one of them, the tests at the end hold it.

transformers serve
    `n`, `logprobs`, `echo` and `stream_options` are taken and ignored. Fields that OpenAI's schema does not have
    (`min_p`, `top_k`, `continue_final_message`, ...) get 422, and so does `prompt_cache_key` on completions. The reason
    is in ``{"detail": ...}``, which the SDK leaves out of its message. No token ids or lists of prompts (400).
    The stop text stays in the text. A stop string with which no token can end, and an empty list of them, get 500;
    streamed, status 200 and an event ``{"error": ...}``. After a 500 the connection is closed, so that the next request
    of a keep-alive client fails. Streams end without ``[DONE]``; their last chunk has usage, asked for or not.
    No limit on length. Models are named by the path given at the start.
vLLM
    Unknown fields are taken and ignored. `n` > 1 at temperature 0 gets 400, and so do `stream_options` without
    `stream`, `continue_final_message` without ``add_generation_prompt: false`` and more tokens than the context has.
    `max_tokens` is 16 by default on completions. `stop_reason` tells a stop string (the string) from the end (null).
    Usage adds up over choices. Prefixes are cached in blocks (128 tokens on a CPU, here 32).
llama-server
    Unknown fields and any model name are taken and ignored; `n` is limited to the number of slots (400 above).
    Usage counts one choice, however many there are; streamed, every choice brings its own. A trailing assistant message
    is always continued, and the reply repeats it, unless it is streamed. Log-probabilities have the shape of chat, on
    completions too. Its own sampling defaults cut (temperature 0.8, top_k 40, top_p 0.95, min_p 0.05); the fixture
    switches that off. Cached tokens are exact to the token; the last one of a prompt is always computed.
"""

import json
import urllib.request

import openai
import pytest
from integration.servers import MODEL
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier
from o1_reason_embedded.policy import prefix_of
from o1_reason_embedded.puzzle import parse
from o1_reason_embedded.vocab import decode, encode, prompt_ids

from o1_reason import State, Step

# Three, four and five numbers; the embedded policy is greedy on each without a malformed step.
QUESTIONS = ["make 24 from 4 6 8", "4 5 6 10", "4 9 10 13", "make 40 from 2 5 7 11", "make 50 from 2 3 5 7 9"]


@pytest.fixture
def client(policy_server):
    with openai.OpenAI(base_url=policy_server, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def prompt_of(state: State) -> str:
    return decode(prefix_of(state).ids)


async def greedy(state: State) -> tuple[Step, ...]:
    (steps,) = (await EmbeddedPolicy(temperature=0).propose(state, 1, 64)).candidates
    return steps


def steps_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_greedy_text_is_that_of_the_model_in_process(client, question):
    expected = await greedy(State(question))
    reply = client.completions.create(model=MODEL, prompt=prompt_of(State(question)), max_tokens=56, temperature=0)
    assert steps_of(reply.choices[0].text) == [step.text for step in expected]
    assert reply.choices[0].finish_reason == "stop"
    puzzle = parse(question)
    assert reply.usage.prompt_tokens == len(prompt_ids(puzzle.numbers, puzzle.target))
    assert reply.usage.completion_tokens == sum(step.tokens for step in expected) + 1  # and the end of sequence
    assert encode(reply.choices[0].text) == encode("".join(step.text + "\n" for step in expected))


async def test_each_prefix_is_continued_as_in_process_and_a_stop_ends_the_step(client):
    state = State(QUESTIONS[1]) + Step("10 - 4 = 6 (left: 5 6 6)")
    while expected := await greedy(state):
        reply = client.completions.create(
            model=MODEL, prompt=prompt_of(state), max_tokens=40, temperature=0, stop=["\n"]
        )
        assert steps_of(reply.choices[0].text) == [expected[0].text]
        assert reply.usage.completion_tokens == expected[0].tokens
        state += expected[0]
        if expected[0].terminal:
            break
    assert len(state.steps) == 3


async def test_a_chat_is_the_same_text_as_a_raw_prompt(client):
    expected = [step.text for step in await greedy(State(QUESTIONS[1]))]
    for newline in ("\n", ""):
        message = {"role": "user", "content": prompt_of(State(QUESTIONS[1])).removesuffix("\n") + newline}
        reply = client.chat.completions.create(model=MODEL, messages=[message], max_tokens=40, temperature=0)
        assert steps_of(reply.choices[0].message.content) == expected
        assert reply.usage.prompt_tokens == 7


def test_sampling_is_seeded_and_not_greedy(client):
    def sample(seed: int) -> str:
        prompt = prompt_of(State(QUESTIONS[1]))
        reply = client.completions.create(model=MODEL, prompt=prompt, max_tokens=40, temperature=1, seed=seed)
        return reply.choices[0].text

    texts = [sample(seed) for seed in range(6)]
    assert len(set(texts)) > 2
    assert sample(3) == texts[3]


@pytest.mark.parametrize(
    "server",
    [pytest.param("vllm_policy", marks=pytest.mark.vllm), pytest.param("llama_server", marks=pytest.mark.llamacpp)],
)
async def test_log_probabilities_are_those_of_the_model_in_process(server, request):
    expected = await greedy(State(QUESTIONS[1]))
    with openai.OpenAI(base_url=request.getfixturevalue(server), api_key="none", max_retries=0) as client:
        message = {"role": "user", "content": prompt_of(State(QUESTIONS[1]))}
        reply = client.chat.completions.create(
            model=MODEL, messages=[message], max_tokens=27, temperature=0, logprobs=True, top_logprobs=1
        )
    found = [token.logprob for token in reply.choices[0].logprobs.content]
    at = 0
    for step in expected:
        assert sum(found[at : at + step.tokens]) / step.tokens == pytest.approx(step.logprob, abs=1e-5)
        at += step.tokens
    assert at == len(found) == 27


def post(base_url: str, path: str, body: dict[str, object]) -> dict:
    data = json.dumps({"model": MODEL, **body}).encode()
    request = urllib.request.Request(base_url.removesuffix("/v1") + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.mark.parametrize(
    ("server", "field"),
    [
        pytest.param("vllm_policy", "prompt", marks=pytest.mark.vllm),
        pytest.param("llama_server", "content", marks=pytest.mark.llamacpp),
    ],
)
async def test_the_server_tokenizes_every_part_of_a_trace_as_the_model_does_whatever_the_spaces(server, field, request):
    base_url = request.getfixturevalue(server)
    ids = encode(prompt_of(State(QUESTIONS[-1], await greedy(State(QUESTIONS[-1])))))
    for end in range(1, len(ids) + 1):
        text = decode(ids[:end])
        for written in (text, text.replace("\n", "\n "), text.replace(" ", "  ")):
            assert post(base_url, "/tokenize", {field: written})["tokens"] == ids[:end]


@pytest.mark.vllm
@pytest.mark.parametrize("as_text", [False, True], ids=["token ids", "text"])
async def test_rewards_are_those_of_the_model_in_process(vllm_prm, as_text):
    states = []
    for question in QUESTIONS:
        steps = await greedy(State(question))
        states += [State(question, steps[:k]) for k in range(1, len(steps) + 1)]
    expected = [score.rewards for score in await EmbeddedVerifier().score(states)]
    inputs = [prompt_of(state) if as_text else prefix_of(state).ids for state in states]
    reply = post(vllm_prm, "/pooling", {"input": inputs})
    for item, rewards in zip(reply["data"], expected, strict=True):
        assert [right for _, right in item["data"]] == pytest.approx(rewards, abs=1e-5)


# What adapters have to provide for.


def raw(client: openai.OpenAI, **body):
    defaults = {"model": MODEL, "prompt": prompt_of(State(QUESTIONS[1])), "max_tokens": 40, "temperature": 1.0}
    return client.post("/completions", cast_to=object, body=defaults | body)


def served(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)


def test_transformers_serve_ignores_n_keeps_the_stop_text_and_refuses_what_it_does_not_know(transformers_serve):
    with served(transformers_serve) as client:
        assert len(raw(client, n=3)["choices"]) == 1
        assert raw(client, temperature=0, stop=["\n"])["choices"][0]["text"].endswith(")\n")
        assert "logprobs" not in raw(client, logprobs=1)["choices"][0]
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            raw(client, min_p=0.1)
        assert "min_p" in refused.value.body["detail"]
        with pytest.raises(openai.BadRequestError) as refused:
            raw(client, prompt=[15, 16])
        assert "must be a string" in refused.value.body["detail"]
        with pytest.raises(openai.InternalServerError):
            raw(client, stop=["Step"])


@pytest.mark.vllm
def test_vllm_cuts_stops_says_which_and_refuses_several_greedy_samples(vllm_policy):
    with served(vllm_policy) as client:
        reply = raw(client, n=3, stop=["\n"])
        assert [choice["stop_reason"] for choice in reply["choices"]] == ["\n"] * 3
        assert not any("\n" in choice["text"] for choice in reply["choices"])
        assert reply["usage"]["completion_tokens"] == 30
        assert raw(client, n=3)["usage"]["completion_tokens"] == 3 * 28
        assert raw(client)["choices"][0]["stop_reason"] is None
        with pytest.raises(openai.BadRequestError, match="greedy"):
            raw(client, n=2, temperature=0)


@pytest.mark.llamacpp
def test_llama_server_counts_one_choice_and_repeats_what_it_continues(llama_server):
    with served(llama_server) as client:
        reply = raw(client, n=3)
        assert len(reply["choices"]) == 3
        assert reply["usage"]["completion_tokens"] == 28
        assert raw(client)["usage"]["prompt_tokens_details"]["cached_tokens"] == 6
        with pytest.raises(openai.BadRequestError, match="'n'"):
            raw(client, n=17)
        step = "10 - 4 = 6 (left: 5 6 6)\n"
        messages = [{"role": "user", "content": prompt_of(State(QUESTIONS[1]))}, {"role": "assistant", "content": step}]
        reply = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=9, temperature=0)
        assert reply.choices[0].message.content == step + " 5 * 6 = 30 (left: 6 30)\n"
