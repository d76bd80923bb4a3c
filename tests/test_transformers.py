"""Models of transformers in this process, for real: a tiny Llama with a token a character, on one CPU thread."""

import asyncio
import json
import math
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

torch = pytest.importorskip("torch", reason="models in this process need PyTorch: pip install 'o1-reason[train]'")
pytest.importorskip("trl", reason="training needs TRL: pip install 'o1-reason[train]'")

from o1_reason_transformers import TransformersChat, TransformersLearner, TransformersPRM, chat  # noqa: E402
from o1_reason_transformers.data import Shown  # noqa: E402
from o1_reason_transformers.generate import Shape, generate  # noqa: E402
from o1_reason_transformers.loading import load_tokenizer  # noqa: E402
from tiny_llama import byte_pairs, llama, tokenizer  # noqa: E402

from o1_reason import BeamSearch, Budget, search  # noqa: E402
from o1_reason.chat import Reply, Sampling  # noqa: E402
from o1_reason.chat_policy import ChatPolicy  # noqa: E402
from o1_reason.errors import ConfigurationError, ModelError, UnjudgedError, VerifierError  # noqa: E402
from o1_reason.learn import policy_trainer, step_rewards  # noqa: E402
from o1_reason.learn.learner import resolve_learner  # noqa: E402
from o1_reason.learn.plan import Plan  # noqa: E402
from o1_reason.learn.prm_data import Encoder, Lines  # noqa: E402
from o1_reason.learn.problems import Problem, same_text  # noqa: E402
from o1_reason.learn.record import STAGES  # noqa: E402
from o1_reason.learn.rounds import improve  # noqa: E402
from o1_reason.learn.rows import completion, preference  # noqa: E402
from o1_reason.learn.training import start_of  # noqa: E402
from o1_reason.mdp import State, Step, Usage  # noqa: E402
from o1_reason.receipt import Receipt, current  # noqa: E402
from o1_reason.resolve import resolve_policy, resolve_verifier  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

WORDS = tokenizer("Answr")
ASK: list[dict[str, Any]] = [{"role": "user", "content": "1 2 3"}]
HEAD = len("1 2 3\n")  # tokens of the plain prompt


def save(model: Any, folder: Path, words: Any = WORDS) -> Path:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that writes at random."""
    return save(llama("CausalLM", WORDS), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that judges at random."""
    return save(llama("TokenClassification", WORDS, num_labels=2), tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def talker(base: Path) -> TransformersChat:
    return TransformersChat(str(base))


async def replies(chat: TransformersChat, prefix: str | None = None, **sampling: Any) -> list[Reply]:
    given: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "seed": 7, **sampling}
    return (await chat.complete(ASK, Sampling(**given), prefix))[0]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def in_text(found: list[Reply]) -> list[Reply]:
    """Those whose tokens are all to be seen: the random model writes special tokens, too, which are no text."""
    seen = [reply for reply in found if reply.tokens == len(reply.text) + (reply.finish == "end")]
    assert seen
    return seen


# Sampling.


async def test_the_same_seed_repeats_the_replies_and_reply_i_has_seed_plus_i(talker: TransformersChat) -> None:
    four = await replies(talker, n=4)
    assert four == await replies(talker, n=4)
    assert len({reply.text for reply in four}) == 4
    shifted = await replies(talker, n=3, seed=8)
    assert [reply.text for reply in shifted] == [reply.text for reply in four[1:]]
    assert (await replies(talker, seed=9))[0].text == four[2].text, "whatever is drawn beside it"
    assert (await replies(talker, seed=None))[0].text != (await replies(talker, seed=None))[0].text


async def test_more_replies_than_rows_come_in_several_batches(base: Path, talker: TransformersChat) -> None:
    narrow = TransformersChat(str(base), rows=2)
    texts = [[reply.text for reply in await replies(chat, n=5)] for chat in (narrow, talker)]
    assert texts[0] == texts[1]


async def test_log_probabilities_and_counts_are_those_of_a_direct_forward_pass(
    base: Path, talker: TransformersChat
) -> None:
    found, usage = await talker.complete(ASK, Sampling(n=8, max_tokens=9, temperature=0.5, seed=1, top_logprobs=2))
    assert usage == Usage(1, HEAD, sum(reply.tokens for reply in found))
    model = llama("CausalLM", WORDS).eval()
    for reply in in_text(found):
        ids = WORDS("1 2 3\n" + reply.text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        said = [logs[at - 1, ids[at]].item() for at in range(HEAD, len(ids))]
        assert reply.logprob == pytest.approx(sum(said) / len(said), abs=1e-5)
        for at, top in enumerate(reply.top_logprobs, HEAD):
            assert list(top.values()) == pytest.approx(logs[at - 1].topk(2).values.tolist(), abs=1e-5)


async def test_temperature_zero_is_greedy_and_a_prefix_goes_on_as_if_uninterrupted(
    base: Path, talker: TransformersChat
) -> None:
    (whole,) = in_text(await replies(talker, n=3, temperature=0, max_tokens=9))
    ids = WORDS("1 2 3\n", add_special_tokens=False, return_tensors="pt")["input_ids"]
    model = llama("CausalLM", WORDS).eval()
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)[0, HEAD:]
    assert whole.text == WORDS.decode(made, skip_special_tokens=True)
    for cut in (1, 3, 6):
        (rest,) = await replies(talker, whole.text[:cut], temperature=0, max_tokens=9 - cut)
        assert whole.text[:cut] + rest.text == whole.text


async def test_a_reply_ends_before_its_stop_string_and_says_why_it_ended(talker: TransformersChat) -> None:
    free = await replies(talker, n=30, max_tokens=20)
    kinds = set()
    for stop in ("\n", "=", "3 ", "\n\n"):
        for before, after in zip(free, await replies(talker, n=30, max_tokens=20, stop=(stop,)), strict=True):
            if before not in in_text(free):
                continue
            blank = len(before.text) - len(before.text.lstrip())
            at = before.text.find(stop, blank)
            assert after.text == (before.text if at < 0 else before.text[:at])
            assert after.finish == (before.finish if at < 0 else "stop")
            assert after.tokens == (before.tokens if at < 0 else at + len(stop))
            kinds.add(after.finish)
    assert kinds >= {"stop", "length"}
    ended = [reply for reply in await replies(talker, n=60, max_tokens=80) if reply.finish == "end"]
    assert ended
    assert all(len(reply.text) < reply.tokens < 80 and "</s>" not in reply.text for reply in ended)


def test_what_is_cut_off_a_distribution_is_what_its_names_say() -> None:
    chances = torch.tensor([[0.5, 0.3, 0.15, 0.05]])

    def left(**shape: Any) -> list[float]:
        return [round(p, 3) for p in Shape(**shape)(chances.log()).softmax(-1)[0].tolist()]

    assert left() == left(top_k=0, top_p=1.0, min_p=0.0) == [0.5, 0.3, 0.15, 0.05]
    assert left(top_k=2) == left(top_p=0.8) == left(min_p=0.5) == [0.625, 0.375, 0.0, 0.0]
    assert left(top_p=0.0) == [1.0, 0.0, 0.0, 0.0]
    assert left(top_k=3, min_p=0.2) == [round(p / 0.95, 3) for p in (0.5, 0.3, 0.15)] + [0.0]


async def test_draws_have_the_frequencies_of_the_models_distribution(talker: TransformersChat) -> None:
    many = await replies(talker, n=2000, max_tokens=1, temperature=0.7, seed=0)
    with torch.no_grad():
        logits = (
            llama("CausalLM", WORDS)
            .eval()(torch.tensor([WORDS("1 2 3\n", add_special_tokens=False)["input_ids"]]))
            .logits[0, -1]
        )
    chances = (logits / 0.7).softmax(-1)
    for word, i in WORDS.get_vocab().items():
        if word not in WORDS.all_special_tokens:
            p, share = chances[i].item(), sum(reply.text == word for reply in many) / len(many)
            assert abs(share - p) < 5 * math.sqrt(p / len(many)), word


async def test_without_a_temperature_the_models_own_settings_hold(base: Path, tmp_path: Path) -> None:
    model = llama("CausalLM", WORDS)
    model.generation_config.update(do_sample=True, temperature=0.5, top_k=3)
    own, plain = TransformersChat(str(save(model, tmp_path))), TransformersChat(str(base), top_k=3)
    texts = [
        [reply.text for reply in await replies(chat, n=4, temperature=t)] for chat, t in ((own, None), (plain, 0.5))
    ]
    assert texts[0] == texts[1]


# Being asked.


async def test_waiting_calls_can_share_a_batch(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spy(network: Any, draws: Any) -> None:
        sizes.append(len(draws))
        generate(network, draws)

    monkeypatch.setattr(chat, "generate", spy)

    async def all_at_once(talker: TransformersChat) -> list[list[str]]:
        prompts = [[{"role": "user", "content": text}] for text in ("1", "2 3 4 5", "67")]
        await talker.complete(ASK, Sampling(max_tokens=1))
        sizes.clear()
        calls = (talker.complete(prompt, Sampling(n=2, max_tokens=8, seed=3)) for prompt in prompts)
        return [[reply.text for reply in found] for found, _ in await asyncio.gather(*calls)]

    alone = await all_at_once(TransformersChat(str(base)))
    assert sizes == [2, 2, 2]
    joined = TransformersChat(str(base), join=True)
    joined.local.submit(time.sleep, 0)  # the thread is there
    assert await all_at_once(joined) == alone, "padding changes nothing but the last bits"
    assert sum(sizes) == 6
    assert max(sizes) >= 4


async def test_a_cancelled_call_stops_generating_and_is_paid_so_far(base: Path) -> None:
    talker = TransformersChat(str(base))
    await replies(talker, max_tokens=1)
    thinking = threading.Event()
    model, _ = talker.local.loaded()
    forwards: list[float] = []

    def watch(*_: Any) -> None:
        forwards.append(time.monotonic())
        if len(forwards) == 5:
            thinking.set()
        time.sleep(0.01)

    model.register_forward_pre_hook(watch)
    model.generation_config.eos_token_id = None
    receipt = Receipt()
    token = current.set(receipt)
    call = asyncio.create_task(replies(talker, n=2, max_tokens=240))
    current.reset(token)
    await asyncio.to_thread(thinking.wait)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    made = len(forwards)
    assert receipt.usage.calls == 1
    assert receipt.usage.prompt_tokens == HEAD
    assert 2 * (made - 2) <= receipt.usage.completion_tokens <= 2 * (made + 1)
    assert (await replies(talker, max_tokens=2))[0].tokens == 2, "the thread is free for the next one"
    assert len(forwards) <= made + 1 + 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_event_loop_goes_on_while_a_model_works_and_a_waiting_call_can_be_cancelled(base: Path) -> None:
    talker = TransformersChat(str(base))
    await replies(talker, max_tokens=1)
    talker.local.loaded()[0].register_forward_pre_hook(lambda *_: time.sleep(0.02))
    long = asyncio.create_task(replies(talker, max_tokens=30, stop=()))
    waiting = asyncio.create_task(replies(talker))
    beats = 0
    while not long.done():
        await asyncio.sleep(0.005)
        beats += 1
        if beats == 3:
            waiting.cancel()
    assert beats > 5
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await long)[0].tokens > 0


async def test_schemas_and_tools_are_refused_and_a_question_that_does_not_fit_fails(talker: TransformersChat) -> None:
    for sampling in (Sampling(schema={"type": "object"}), Sampling(tools=({"type": "function"},))):
        with pytest.raises(ConfigurationError, match="vLLM"):
            await talker.complete(ASK, sampling)
    with pytest.raises(ModelError, match="does not fit into the context of 256"):
        await talker.complete([{"role": "user", "content": "1 " * 200}])
    (full,), usage = await talker.complete(ASK, Sampling(), "1" * 250)
    assert (full.text, full.finish, full.tokens) == ("", "length", 0)
    assert usage == Usage(1, 256, 0)


async def test_a_call_costs_no_more_than_its_bound(talker: TransformersChat) -> None:
    sampling = Sampling(n=3, max_tokens=7)
    bound = talker.bound(ASK, sampling, "1 + 2")
    _, usage = await talker.complete(ASK, sampling, "1 + 2")
    assert usage.prompt_tokens <= bound.prompt_tokens
    assert usage.completion_tokens <= bound.completion_tokens == 21


def test_models_and_settings_that_cannot_be_are_told(base: Path) -> None:
    for name, message in (
        (f"{base}?top_q=1", "no setting top_q"),
        (f"{base}?dtype=float8", "dtype must be one of"),
        ("", "which model"),
        (f"{base}?rows=0", "rows must be at least 1"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            resolve_policy(f"transformers:{name}")
    with pytest.raises(ConfigurationError, match="problems=FILE"):
        resolve_learner(f"transformers:{base}")
    with pytest.raises(ConfigurationError, match="no setting problem;"):
        resolve_learner(f"transformers:{base}?problems=p.jsonl&problem=x")
    with pytest.raises(ConfigurationError, match="name their folder with --start"):
        start_of(f"transformers:{base}?problems=p.jsonl", None)
    with pytest.raises(ConfigurationError, match="as must be one of prm, critic"):
        resolve_verifier(f"transformers:{base}?as=judge")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        asyncio.run(replies(TransformersChat("/no/such/folder")))


def test_importing_the_adapter_loads_no_pytorch() -> None:
    code = "import o1_reason_transformers, sys; print({'torch', 'transformers', 'openai'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_an_identity_is_that_of_the_weights(base: Path, tmp_path: Path) -> None:
    copy = save(llama("CausalLM", WORDS), tmp_path / "copy")
    other = llama("CausalLM", WORDS)
    torch.nn.init.zeros_(other.lm_head.weight)
    changed = save(other, tmp_path / "changed")
    first, same, not_same = (TransformersChat(str(path)).identity for path in (base, copy, changed))
    assert first == same != not_same
    assert pickle.loads(pickle.dumps(TransformersChat(str(base), top_k=3))).identity != first


# Reward models.


STATES = [
    State("1 2", (Step("1 + 2"), Step("3\n"))),
    State("4 5 6", (Step("4"),)),
    State("7", (Step("7 - 0 = 7 left"), Step("7"), Step("Answer: 7", True, "7"))),
]


@pytest.mark.parametrize("rows", [1, 32])
async def test_scores_are_those_of_a_forward_pass_with_the_trainers_encoder(reward: Path, rows: int) -> None:
    scores = await TransformersPRM(str(reward), rows=rows).score(STATES)
    model = llama("TokenClassification", WORDS, num_labels=2).eval()
    encode, read = Encoder(WORDS, Lines(), 256), 0
    for state, score in zip(STATES, scores, strict=True):
        ids, marks = encode(state.question, [step.text for step in state.steps])
        read += len(ids)
        with torch.no_grad():
            right = model(torch.tensor([ids])).logits[0].softmax(-1)[:, 1]
        assert score.rewards == pytest.approx(right[marks].tolist(), abs=1e-5)
    assert [score.usage for score in scores] == [Usage(1, read), Usage(), Usage()]


async def test_scoring_costs_no_more_than_its_bound(reward: Path) -> None:
    prm = TransformersPRM(str(reward), step_tokens=8)
    assert prm.bound is not None
    state = State("1 2", (Step("1 + 2 = 3"),))
    for _ in range(2):  # before the tokens per byte are known, and after
        scores = await prm.score([state + Step("3 left: "), state + Step("4")])
        assert 0.5 < scores[0].usage.tokens / prm.bound(state, 2, 1).tokens <= 1
    assert TransformersPRM(str(reward)).bound is None


async def test_paths_that_do_not_fit_have_no_score_and_the_others_do(reward: Path) -> None:
    prm = TransformersPRM(str(reward), max_length=15)
    with pytest.raises(UnjudgedError, match=r"of 3 steps .* only 0 fit .* 15 tokens") as raised:
        await prm.score(STATES)
    assert [score is not None for score in raised.value.scores] == [True, True, False]
    assert raised.value.scores[0].usage.prompt_tokens > 0
    with pytest.raises(VerifierError, match="the state has none"):
        await prm.score([State("1 2")])


async def test_a_model_without_the_head_is_no_reward_model(base: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a LlamaForCausalLM"):
        await TransformersPRM(str(base)).score(STATES)
    with pytest.raises(ConfigurationError, match="have no classes"):
        TransformersPRM(str(base), format="math-shepherd")


async def test_a_search_by_names_brings_scores_for_each_step_and_counts_what_it_costs(base: Path, reward: Path) -> None:
    policy = f"transformers:{base}?separator={quote(json.dumps(chr(10)))}&step_tokens=12&instructions="
    results = [
        await search(
            "1 2 3", policy, f"transformers:{reward}", BeamSearch(width=2, branch=3, max_depth=3), Budget(), seed=3
        )
        for _ in range(2)
    ]
    tree = results[0].tree
    assert len(tree) > 4
    assert all(node.reward is not None for node in tree.nodes[1:])
    assert results[0].policy_usage.completion_tokens > 0
    assert results[0].verifier_usage.prompt_tokens > 0
    assert [node.step for node in tree.nodes] == [node.step for node in results[1].tree.nodes]


# Learning.


def digits(a: int, b: int, c: int) -> Problem:
    """The answer is the first of three digits: a position to look at, which a tiny model learns in seconds."""
    return Problem(f"{a} {b} {c}", str(a))


PROBLEMS = [digits(i % 10, i * 7 // 3 % 10, i * 13 // 5 % 10) for i in range(120)]
SETTINGS = {"separator": "\n", "step_tokens": 16, "solution_tokens": 40, "instructions": "", "temperature": 1.0}


def solved(problem: Problem) -> State:
    return State(problem.question, (Step(f"= {problem.gold}"), Step(f"Answer: {problem.gold}", True, problem.gold)))


@pytest.fixture(scope="module")
def begun(base: Path, tmp_path_factory: pytest.TempPathFactory) -> TransformersLearner:
    """A policy that has seen some solutions, and problems."""
    folder = tmp_path_factory.mktemp("begun")
    rows = [completion(problem, solved(problem), "test") for problem in PROBLEMS]
    write(rows, folder / "solutions.jsonl")
    write([{"question": p.question, "gold": p.gold} for p in PROBLEMS], folder / "problems.jsonl")
    first = TransformersLearner(str(base), problems=folder / "problems.jsonl", settings=SETTINGS)
    first.begin(folder / "base", seed=0, scale="any", report=lambda line: None)
    first.train_policy(
        folder / "solutions.jsonl", folder / "base", folder / "taught", method="sft", seed=0, report=lambda line: None,
        max_steps=80, batch=16, learning_rate=5e-3,
    )  # fmt: skip
    return TransformersLearner(
        str(folder / "taught" / "policy"), problems=folder / "problems.jsonl", valid=0.25, test=0.2, settings=SETTINGS
    )


def shown(folder: Path, **settings: Any) -> Shown:
    words = load_tokenizer(str(folder))
    return Shown(ChatPolicy(TransformersChat(str(folder)), **settings), words, frozenset({words.eos_token_id}))


TEMPLATE = (
    "{% for m in messages %}({{ m.role }}>{{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}(left>{% endif %}"
)


def begun_turn(words: Any, question: str) -> str:
    return words.decode(words(f"(system>+ -</s>(user>{question}</s>(left>")["input_ids"])


@pytest.mark.parametrize("template", [None, TEMPLATE])
@pytest.mark.parametrize("separator", ["\n\n", "\n"])
@pytest.mark.parametrize("make", [lambda: tokenizer("Answr"), byte_pairs], ids=["characters", "byte pairs"])
async def test_a_policy_is_trained_on_the_tokens_that_it_is_searched_with(
    tmp_path: Path, template: str | None, separator: str, make: Any
) -> None:
    words = make()
    words.chat_template = template
    words.save_pretrained(tmp_path)
    train = shown(tmp_path, separator=separator, instructions="+ -")
    state = replace(solved(PROBLEMS[5]), steps=(Step("1 + 1\n= 2."), *solved(PROBLEMS[5]).steps))
    write([completion(Problem(state.question), state, "test")], tmp_path / "sft.jsonl")
    (row,) = train.sft(tmp_path / "sft.jsonl")
    policy, words = train.policy, train.tokenizer
    assert isinstance(policy.chat, TransformersChat)
    for done in range(len(state.steps)):
        messages, prefix = policy._prompt(replace(state, steps=state.steps[:done]), 1, True)
        prompt = policy.chat.encode(words, messages, prefix or "")
        assert row["input_ids"][: len(prompt)] == prompt, "what it is shown before each step"
        last = done + 1 == len(state.steps)
        said = words(state.steps[done].text + ("" if last else separator), add_special_tokens=False)["input_ids"]
        assert row["input_ids"][len(prompt) :][: len(said)] == said, "and what it then says"
        if done == 0:
            plain = f"+ -\n{state.question}\n"
            assert words.decode(prompt) == (plain if template is None else begun_turn(words, state.question))
            assert row["labels"] == [-100] * len(prompt) + row["input_ids"][len(prompt) :]
    assert row["input_ids"][-1] == words.eos_token_id
    path = tuple(step.text for step in state.steps[:2])
    pair = preference(Problem(state.question), path, "4 + 4", "Answer: 4", 0.5)
    write([pair], tmp_path / "dpo.jsonl")
    (row,) = train.dpo(tmp_path / "dpo.jsonl")
    messages, prefix = policy._prompt(replace(state, steps=state.steps[:2]), 1, True)
    assert row["prompt_ids"] == policy.chat.encode(words, messages, prefix or "")
    assert words.decode(row["chosen_ids"]) == "4 + 4" + separator
    assert words.decode(row["rejected_ids"]) == "Answer: 4</s>"


def test_no_question_is_in_two_splits_and_its_words_decide_which(begun: TransformersLearner, tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    again = [{"question": f"  {p.question} ", "gold": p.gold} for p in PROBLEMS]
    write(
        [*again, {"question": "8 9 9", "gold": "8"}, *({"question": p.question, "gold": p.gold} for p in PROBLEMS)],
        path,
    )
    more = TransformersLearner("any", problems=path, valid=0.25, test=0.2)
    for name, questions in begun.file.splits.items():
        assert {same_text(q) for q in questions} <= {same_text(q) for q in more.file.splits[name]}
    keys = [same_text(q) for questions in more.file.splits.values() for q in questions]
    assert len(keys) == len(set(keys)) == len({"8 9 9", *(p.question for p in PROBLEMS)})
    two = begun.problems("valid", 10, 1), begun.problems("valid", 10, 2)
    assert two[0] == begun.problems("valid", 10, 1) != two[1]
    with pytest.raises(ConfigurationError, match=r"has [0-9]+ problems, and 500 were asked for"):
        begun.problems("valid", 500, 0)
    write([{"question": "1"}], path)
    with pytest.raises(ConfigurationError, match="no gold answer"):
        TransformersLearner("any", problems=path).checker()


async def test_the_check_is_exact_travels_and_knows_its_problems_only(begun: TransformersLearner) -> None:
    check = pickle.loads(pickle.dumps(begun.checker()))
    question = PROBLEMS[3].question
    states = [State(question, (Step(text, True, text),)) for text in ("3", "6/2", "4")]
    assert [score.rewards for score in await check.score(states)] == [(1.0,), (1.0,), (0.0,)]
    with pytest.raises(VerifierError, match="no question"):
        await check.score([State("what?", (Step("3", True, "3"),))])


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_the_other_methods_train_on_what_a_search_shows(
    begun: TransformersLearner, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()

    def spy(judge: Any, batch: Any, *rest: Any) -> Any:
        asked.update(WORDS.batch_decode([row[row != WORDS.pad_token_id] for row in batch["prompt_ids"]]))
        return step_rewards.token_advantages(judge, batch, *rest)

    monkeypatch.setattr(policy_trainer, "token_advantages", spy)
    begun.begin(tmp_path / "start", seed=0, scale="any", report=lambda line: None)
    path = ("= 1",)
    pairs = [preference(p, path, f"Answer: {p.gold}", "= 1 1", 1.0) for p in PROBLEMS[:12]]
    write(pairs, tmp_path / "data.jsonl")
    more: dict[str, Any] = {"max_steps": 2, "batch": 4, "learning_rate": 1e-3}
    if method == "grpo":
        more |= {"group": 4, "max_new_tokens": 24}
    record = begun.train_policy(
        tmp_path / "data.jsonl", tmp_path / "start", tmp_path / "out", method=method, seed=0,
        report=lambda line: None, **more,
    )  # fmt: skip
    assert record["steps"] == 2
    prompts = {problem.question + "\n" for problem in PROBLEMS[:12]}
    assert (asked <= prompts and len(asked) == 2) if method == "grpo" else not asked
    files = {path.name for path in (tmp_path / "out" / "policy").iterdir()}
    assert files >= {"model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert not files & {"checkpoints", "training_args.bin"}
    assert asyncio.run(replies(TransformersChat(str(tmp_path / "out" / "policy"))))


PLAN = Plan(
    problems=10, tokens=2000, option=("n=8",), label="outcomes", objective="regression",
    prm={"max_steps": 10, "learning_rate": 3e-3}, method="sft", policy={"max_steps": 10, "learning_rate": 1e-3},
    gate_problems=6, gate_tries=1, gate_tokens=300, measure_problems=6, measure_tokens=(150, 300),
)  # fmt: skip


@pytest.mark.timeout(300)
def test_a_whole_round_on_models_of_transformers_interrupted_and_gone_on_with(
    begun: TransformersLearner, tmp_path: Path
) -> None:
    problems = quote(str(begun.path))
    settings = "&".join(f"{name}={quote(json.dumps(value))}" for name, value in SETTINGS.items())
    name = f"transformers:{begun.model}?problems={problems}&valid=0.25&test=0.2&{settings}"

    def go_on(stop: str | None, folder: str = "run") -> Any:
        def watch(now: Any) -> None:
            if now.stage == stop and now.done:
                raise KeyboardInterrupt

        return improve(tmp_path / folder, 1, learner=name, scale="any", seed=2, plan=PLAN, progress=watch)

    with pytest.raises(KeyboardInterrupt):
        go_on("train_prm")
    written = (tmp_path / "run/rounds/001/train_prm.json").stat().st_mtime_ns
    start, first = go_on(None)
    assert (first.folder / "train_prm.json").stat().st_mtime_ns == written, "it is not done again"
    assert tuple(first.stages) == STAGES
    assert first.stages["collect"]["right"] > 0
    rows = first.stages["label"]["rows"]
    assert rows["steps.jsonl"] and rows["policy.jsonl"]
    for role in ("policy", "prm"):
        new, old = (each / role / "model.safetensors" for each in (first.folder / role, start.weights))
        assert new.read_bytes() != old.read_bytes()
        accepted = first.stages[f"gate_{role}"]["accepted"]
        assert all(0 < tokens <= PLAN.gate_tokens for tokens in first.stages[f"gate_{role}"]["tokens"])
        assert (first.weights / role / "model.safetensors").read_bytes() == (new if accepted else old).read_bytes()
    assert start.stages["measure"]["greedy"]["accuracy"]["value"] > 0.3, "it was taught before"
    assert go_on(None) == [start, first]
    for one, other in zip((start, first), go_on(None, "alone"), strict=True):
        for stage, found in one.stages.items():
            assert {**other.stages[stage], "seconds": 0} == {**found, "seconds": 0}, "data and weights, to the byte"
    record = begun.train_prm(
        first.folder / "traces.jsonl", first.weights, tmp_path / "td", objective="td", seed=0,
        report=lambda line: None, max_steps=2, batch=2,
    )  # fmt: skip
    assert (record["steps"], record["objective"]["name"]) == (2, "td")
    assert asyncio.run(begun.verifier(tmp_path / "td").score(STATES))[0].rewards


def test_the_fingerprint_of_a_large_file_sees_its_ends_its_middle_and_its_size(tmp_path: Path) -> None:
    from o1_reason_transformers.loading import digest

    file = tmp_path / "model.safetensors"
    data = bytearray(20 << 20)
    found = []
    for change in ({}, {0: 1}, {len(data) - 1: 1}, {(len(data) - (1 << 16)) * 100 // 255: 1}):
        changed = data.copy()
        for at, value in change.items():
            changed[at] = value
        file.write_bytes(changed)
        found.append(digest(tmp_path))
    file.write_bytes(data + b"\0")
    found.append(digest(tmp_path))
    assert len(set(found)) == 5
    file.write_bytes(data)
    assert digest(tmp_path) == found[0]
