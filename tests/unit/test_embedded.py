import numpy as np
import o1_reason_embedded
import pytest
from hypothesis import given
from hypothesis import strategies as st
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier, RuleVerifier, vocab
from o1_reason_embedded.policy import WEIGHTS, decoder, log_softmax, prefix_of
from o1_reason_embedded.runtime import Cache

from o1_reason import Budget, ConfigurationError, Gate, PolicyError, State, Step, Usage, VerifierError, search
from o1_reason.protocols import check_scores
from o1_reason.testing import check_policy, check_verifier

QUESTION = "4 5 6 10"
START = State(QUESTION)
ONE = START + Step("4 + 6 = 10 (left: 5 10 10)")
TWO = ONE + Step("10 + 10 = 20 (left: 5 20)")
RIGHT = (
    START
    + Step("10 - 4 = 6 (left: 5 6 6)")
    + Step("5 * 6 = 30 (left: 6 30)")
    + Step("30 - 6 = 24 (left: 24)", True, "5 * (10 - 4) - 6")
)
QUESTIONS = ["4 5 6", QUESTION, "1 2 3 4 5", "make 100 from 25 25 25 25"]


def texts(proposals):
    return [[step.text for step in candidate] for candidate in proposals.candidates]


@pytest.fixture
def policy():
    return EmbeddedPolicy()


@pytest.fixture
def verifier():
    return EmbeddedVerifier()


# The policy.


@pytest.mark.parametrize("question", QUESTIONS)
async def test_the_policy_keeps_its_laws(policy, question):
    await check_policy(policy, question)


@pytest.mark.parametrize("seed", range(5))
async def test_single_steps_are_all_different(policy, seed):
    found = [candidate[0].text for candidate in (await policy.propose(START, 24, seed=seed)).candidates]
    assert len(found) > 1
    assert len(set(found)) == len(found)


async def test_what_is_proposed_can_be_gone_on_from_however_wild_the_sampling(policy):
    for seed in range(3):
        for candidate in (await policy.propose(START, 256, 2, temperature=2.5, seed=seed)).candidates:
            for step in candidate:
                vocab.encode(step.text + "\n")  # a padding token would be outside the vocabulary


async def test_whole_solutions_end_with_an_answer_and_may_repeat(policy):
    candidates = (await policy.propose(START, 64, 64, seed=0)).candidates
    assert candidates
    for candidate in candidates:
        assert [step.terminal for step in candidate] == [False, False, True]
        assert candidate[-1].answer
        assert {step.tokens for step in candidate} <= {10, 9, 8}
        assert all(step.logprob <= 0 for step in candidate)


async def test_the_same_seed_gives_the_same_and_another_seed_something_else(policy):
    for n, max_steps in ((6, 1), (4, 3)):
        one, same, other = [await policy.propose(START, n, max_steps, seed=seed) for seed in (1, 1, 2)]
        assert one == same
        assert texts(one) != texts(other)


async def test_calls_of_an_object_repeat_in_their_order():
    first, second = EmbeddedPolicy(seed=3), EmbeddedPolicy(seed=3)
    calls = [texts(await first.propose(START, 4, 3)) for _ in range(3)]
    assert calls == [texts(await second.propose(START, 4, 3)) for _ in range(3)]
    assert calls[0] != calls[1]


async def test_greedy_gives_one_candidate_whatever_the_seed(policy):
    found = [await policy.propose(START, 5, 3, temperature=0, seed=seed) for seed in (1, 2)]
    assert found[0] == found[1]
    assert len(found[0].candidates) <= 1
    assert found[0].usage.completion_tokens == 27
    assert EmbeddedPolicy(temperature=0).identity != policy.identity


@pytest.mark.parametrize("state", [START, ONE, TWO, State("1 2 3 4 5"), State("4 5 6")])
@pytest.mark.parametrize(("n", "max_steps"), [(1, 1), (5, 1), (3, 2), (4, 64)])
async def test_the_bound_is_what_a_call_costs(policy, verifier, state, n, max_steps):
    proposals = await policy.propose(state, n, max_steps, seed=0)
    bound = policy.bound(state, n, max_steps)
    if n > 1:  # fewer different steps than n may be likely enough
        assert proposals.usage.completion_tokens <= bound.completion_tokens
        assert len(proposals.candidates) <= n
    else:
        assert proposals.usage == bound
    if len(proposals.candidates) == n:
        ends = [State(state.question, (*state.steps, *candidate)) for candidate in proposals.candidates]
        scores = await verifier.score(ends)
        assert sum((score.usage for score in scores), Usage()) == verifier.bound(state, n, max_steps)


async def test_nothing_follows_a_finished_state_and_that_costs_nothing(policy):
    proposals = await policy.propose(RIGHT, 4)
    assert (proposals.candidates, proposals.usage) == ((), Usage())


@pytest.mark.parametrize(("n", "max_steps"), [(1, 3), (4, 3), (5, 1)])
async def test_a_log_probability_is_what_the_whole_sequence_gives_without_a_cache(policy, n, max_steps):
    model = decoder(policy.weights)
    prefix = prefix_of(ONE).ids
    for candidate in (await policy.propose(ONE, n, max_steps, seed=0)).candidates:
        ids = prefix + vocab.encode("".join(step.text + "\n" for step in candidate))
        hidden = model.forward(np.array([ids]), Cache(model.shape, 1, len(ids)))
        logprobs = log_softmax(model.logits(hidden))[0, np.arange(len(ids) - 1), ids[1:]]
        at = len(prefix) - 1
        for step in candidate:
            assert step.logprob == pytest.approx(logprobs[at : at + step.tokens].mean(), abs=1e-3)
            at += step.tokens


# The verifiers.


async def states(policy):
    found = [START, ONE, TWO, RIGHT, State("1 2 3 4 5")]
    for candidate in (await policy.propose(START, 6, 3, seed=0)).candidates:
        found.extend(State(QUESTION, candidate[:k]) for k in (1, 2, 3))
    return found


@pytest.mark.parametrize("name", ["embedded", "embedded:rules", "embedded:prm+rules"])
async def test_a_batch_is_scored_as_each_of_its_states_alone(policy, name):
    await check_verifier(o1_reason_embedded.verifier(name.partition(":")[2]), await states(policy))


async def test_the_reward_model_gives_one_reward_per_step_and_earlier_ones_do_not_see_later_steps(verifier):
    one, two = await verifier.score([ONE, TWO])
    assert (len(one.rewards), len(two.rewards)) == (1, 2)
    assert two.rewards[0] == pytest.approx(one.rewards[0], abs=1e-5)


@pytest.mark.parametrize(
    ("state", "reward"),
    [
        (START, 1),
        (ONE, 1),
        (TWO, 1),
        (RIGHT, 1),
        (START + Step("4 + 6 = 11 (left: 5 10 11)"), 0),
        (ONE + Step("4 + 6 = 10 (left: 5 10 10)"), 0),
        (START + Step("let me think"), 1),
        (START + Step("so", True, "5 * (10 - 4) - 6 = 24"), 1),
        (START + Step("so", True, "4 * 6"), 0),
        (START + Step("so", True, "__import__('os')"), 0),
        (START + Step("so", True), 0),
    ],
)
async def test_the_rule_check_is_exact(state, reward):
    (score,) = await RuleVerifier().score([state])
    assert score.rewards == (reward,)
    assert (score.critique is None) == bool(reward)


async def test_prm_and_rules_is_the_reward_model_with_refuted_answers_worth_nothing(verifier):
    wrong = TWO + Step("20 + 5 = 25 (left: 25)", True, "4 + 5 + 6 + 10")
    plain = await verifier.score([TWO, RIGHT, wrong])
    gated = check_scores(await Gate(verifier, RuleVerifier()).score([TWO, RIGHT, wrong]), [TWO, RIGHT, wrong])
    assert [score.rewards for score in gated[:2]] == [score.rewards for score in plain[:2]]
    assert gated[2].rewards == (*plain[2].rewards[:-1], 0)
    assert "does not make 24" in gated[2].critique


@pytest.mark.parametrize("text", ["let me think", "4 + 6 = 1000 (left: 5)", "%"])
async def test_steps_outside_the_vocabulary_are_an_error_that_says_so(policy, verifier, text):
    foreign = START + Step(text)
    with pytest.raises(PolicyError, match="cannot go on from these steps"):
        await policy.propose(foreign, 1)
    with pytest.raises(VerifierError, match="cannot read this step"):
        await verifier.score([ONE, foreign])


async def test_questions_outside_the_domain_are_refused_by_every_part(policy, verifier):
    foreign = State("What is love?")
    for part in (policy, verifier):
        with pytest.raises(ConfigurationError, match="arithmetic puzzles only"):
            part.bound(foreign, 1, 1)
    for call in (policy.propose(foreign, 1), verifier.score([foreign]), RuleVerifier().score([foreign])):
        with pytest.raises(ConfigurationError, match="arithmetic puzzles only"):
            await call


# Searches.


@pytest.mark.parametrize("strategy", ["cot", "self_consistency", "best_of_n", "beam", "dfs", "dvts", "mcts"])
async def test_a_seeded_search_repeats_and_spends_what_it_says(strategy):
    budget = Budget(max_tokens=3000, concurrency=1)
    one, same = [await search(QUESTION, "embedded", "embedded:prm+rules", strategy, budget, seed=5) for _ in range(2)]
    assert one.tree == same.tree
    assert (one.answer, one.usage) == (same.answer, same.usage)
    assert one.usage.tokens <= 3000


async def test_in_whatever_order_calls_finish_a_beam_search_finds_the_same_paths():
    def paths(tree):
        return sorted((tree.state(node.id).text, node.samples) for node in tree.nodes[1:])

    wide, narrow = [
        await search(QUESTION, "embedded", "embedded", "beam", Budget(concurrency=width), seed=5) for width in (16, 1)
    ]
    assert paths(wide.tree) == paths(narrow.tree)
    other = await search(QUESTION, "embedded", "embedded", "beam", seed=6)
    assert paths(other.tree) != paths(wide.tree)


# Files and tokens.


def test_the_weights_are_small_and_record_how_they_were_made():
    files = sorted(WEIGHTS.glob("*"))
    assert {file.name for file in files} >= {"policy.safetensors", "prm.safetensors"}
    assert sum(file.stat().st_size for file in files) < 8_000_000
    for file in files:
        assert {"scale", "seed", "steps"} <= decoder(file).record.keys()


NUMBER = st.integers(0, vocab.MAX_NUMBER)
STEP = st.tuples(NUMBER, st.sampled_from("+-*/"), NUMBER, NUMBER, st.lists(NUMBER, min_size=1, max_size=4)).map(
    lambda s: f"{s[0]} {s[1]} {s[2]} = {s[3]} (left: {' '.join(map(str, s[4]))})\n"
)


@given(st.lists(NUMBER, min_size=1, max_size=5), NUMBER, st.lists(STEP, max_size=4))
def test_prompts_and_steps_survive_encoding(numbers, target, steps):
    text = f"{' '.join(map(str, numbers))} -> {target}\n{''.join(steps)}"
    ids = vocab.encode(text)
    assert vocab.decode(ids) == text
    assert ids[: vocab.prompt_length(len(numbers))] == vocab.prompt_ids(numbers, target)


@given(st.lists(st.integers(vocab.NEWLINE, vocab.VOCAB_SIZE - 1)))
def test_tokens_survive_decoding(ids):
    assert vocab.encode(vocab.decode(ids)) == ids


def test_a_step_has_the_length_it_is_said_to_have():
    for left in range(1, 5):
        text = f"4 + 6 = 10 (left: {' '.join(['10'] * left)})\n"
        assert len(vocab.encode(text)) == vocab.step_length(left)


@pytest.mark.parametrize("text", ["x", "4 + x = 5", "320", "4 % 5", "<pad>", "4 + 6 = 10 (left 10)", "4 + 6 !"])
def test_text_outside_the_vocabulary_is_refused_and_never_dropped(text):
    with pytest.raises(ValueError, match="not in the vocabulary"):
        vocab.encode(text)
