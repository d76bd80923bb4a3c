"""The training code: its data, its model against the numpy runtime, and the whole recipe at a tiny scale."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from o1_reason_embedded import EmbeddedLearner, RuleVerifier
from o1_reason_embedded import vocab as v
from o1_reason_embedded.policy import WEIGHTS
from o1_reason_embedded.puzzle import parse
from o1_reason_embedded.runtime import Cache, Decoder
from safetensors.numpy import load_file

from o1_reason import State, Step, Tree
from o1_reason.errors import ConfigurationError

torch = pytest.importorskip("torch", reason="training needs PyTorch: pip install 'o1-reason[train]'")

from o1_reason_embedded.train import corpus, improve, rollouts, traces  # noqa: E402
from o1_reason_embedded.train.model import load, orthogonal  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TEST = traces.ranked_puzzles()[900:1000]


@pytest.mark.parametrize(("n", "most"), [(3, 25), (4, 13), (4, 25), (5, 25)])
@pytest.mark.parametrize("reserved", [False, True])
def test_no_test_puzzle_is_in_any_training_trace_for_any_target(n: int, most: int, reserved: bool) -> None:
    pool = traces.pool(7, n, most, 200_000, 100_000, reserved=reserved and n > 3)
    shown = [pool.tokens[:, :n]]
    if n == 5:  # what five numbers become after their first step
        end = v.prompt_length(5) + v.step_length(4) - 1
        shown = [pool.tokens[:, end - 4 : end]]
    states = {tuple(row) for row in np.sort(np.concatenate(shown).astype(int) - v.NUMBER_0, axis=1).tolist()}
    assert len(states) > 50
    assert not states & set(TEST)
    assert not states & set(traces.validation_puzzles())


def test_every_trace_obeys_the_rules_and_a_change_to_any_number_breaks_them() -> None:
    pool = traces.pool(3, 4, 13, 20_000, 10_000)
    assert traces.check(pool.tokens, 4).all()
    numbers = np.flatnonzero(pool.tokens[0] >= v.NUMBER_0)
    for position in numbers:
        spoilt = pool.tokens[:200].copy()
        spoilt[:, position] += 1
        assert not traces.check(spoilt, 4).any(), f"token {position}"


def test_traces_are_distinct_and_half_the_weight_is_on_24() -> None:
    pool = traces.pool(3, 4, 13, 50_000, 50_000)
    assert len(np.unique(pool.tokens, axis=0)) == len(pool.tokens)
    drawn = pool.draw(np.random.default_rng(0), 20_000)
    assert (drawn[:, 5] == v.NUMBER_0 + 24).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("name", ["policy", "prm"])
def test_numpy_runtime_equals_pytorch_with_and_without_cache(name: str) -> None:
    path = WEIGHTS / f"{name}.safetensors"
    decoder = Decoder(path)
    model = load(path, "cpu", decoder.logits(np.zeros((1, decoder.shape.width), np.float32)).shape[-1])
    ids = traces.pool(1, 4, 13, 5_000, 1_000).tokens[:8].astype(np.int64)
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids)).numpy()
    cache = Cache(decoder.shape, len(ids), ids.shape[1])
    whole = decoder.logits(decoder.forward(ids, cache))
    np.testing.assert_allclose(whole, expected, atol=2e-4)
    cache = Cache(decoder.shape, len(ids), ids.shape[1])
    parts = [decoder.logits(decoder.forward(part, cache)) for part in np.split(ids, [7, 8, 20], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=2e-4)


def test_the_training_model_is_a_llama(tmp_path: Path) -> None:
    """Names and arithmetic are Hugging Face's, so that the weights can be served by others."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers where it is installed")
    model = load(WEIGHTS / "policy.safetensors", "cpu")
    shape = model.shape
    config = transformers.LlamaConfig(
        vocab_size=v.VOCAB_SIZE, hidden_size=shape.width, intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, rms_norm_eps=1e-6,
        max_position_embeddings=shape.context, rope_theta=shape.theta, tie_word_embeddings=False,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(config).eval()
    assert not llama.load_state_dict(model.state_dict(), strict=True).missing_keys
    ids = torch.tensor([v.prompt_ids((4, 5, 6, 10), 24)])
    with torch.inference_mode():
        torch.testing.assert_close(llama(ids).logits, model(ids), atol=1e-4, rtol=1e-4)


def test_newton_schulz_brings_every_singular_value_near_one() -> None:
    matrices = torch.randn(3, 40, 24, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert (values > 0.6).all()
    assert (values < 1.3).all()


def test_monte_carlo_labels_are_shares_of_right_continuations() -> None:
    model = load(WEIGHTS / "policy.safetensors", "cpu")
    pool = traces.pool(5, 4, 13, 20_000, 5_000, reserved=True)
    (data,) = rollouts.label(model, [(pool, 40)], rollouts=4, seed=0, report=lambda _: None)
    assert data.labels.shape == (40, 3)
    assert set(np.unique(data.labels[:, :2] * 4)) <= set(range(5))
    np.testing.assert_array_equal(data.labels[:, 2], traces.check(data.tokens, 4))
    impossible = [row for row in range(40) if not solvable(data.tokens[row])]
    assert impossible
    assert not data.labels[impossible, 0].any(), "no continuation of an unsolvable state obeys the rules"


def solvable(tokens: np.ndarray) -> bool:
    """Exhaustively: can the three numbers left after the first step still make the target (as whole numbers >= 0)?"""
    end = v.prompt_length(4) + v.step_length(3) - 1
    target = int(tokens[5]) - v.NUMBER_0

    def reach(left: tuple[int, ...]) -> bool:
        if len(left) == 1:
            return left[0] == target
        for i, j in itertools.permutations(range(len(left)), 2):
            a, b = left[i], left[j]
            rest = [left[k] for k in range(len(left)) if k not in (i, j)]
            values = [a + b, a * b, a - b] + ([a // b] if b and a % b == 0 else [])
            if any(value >= 0 and reach((*rest, value)) for value in values):
                return True
        return False

    return reach(tuple(int(t) - v.NUMBER_0 for t in tokens[end - 3 : end]))


@pytest.mark.timeout(600)
def test_the_whole_recipe_runs_and_repeats(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "o1_reason_embedded.train", "--scale", "smoke", "--tokens", "8000"]
    for folder in ("a", "b"):
        ran = subprocess.run([*command, "--out", tmp_path / folder], capture_output=True, text=True, timeout=400)
        assert ran.returncode == 0, ran.stderr
    for name in ("policy", "prm"):
        first, second = (tmp_path / folder / f"{name}.safetensors" for folder in ("a", "b"))
        one, other = (load_file(path) for path in (first, second))  # the order of a file's metadata is arbitrary
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one), f"{name}: the same seed gave other weights"
        assert Decoder(first).record == Decoder(second).record
        record = Decoder(first).record
        assert record["scale"] == "smoke"
        assert record["seed"] == 0


def test_shipped_weights_are_small_and_say_how_they_were_made() -> None:
    files = list(WEIGHTS.glob("*.safetensors"))
    assert {file.stem for file in files} == {"policy", "prm"}
    assert sum(file.stat().st_size for file in files) < 8_000_000
    for file in files:
        record = Decoder(file).record
        assert record["scale"] == "ship", json.dumps(record)


# The learner: problems, and training on what searches left behind.

LEARNER = EmbeddedLearner()


def test_no_validation_or_test_puzzle_is_among_the_training_problems() -> None:
    valid, test = LEARNER.problems("valid", 668, 0), LEARNER.problems("test", 100, 0)
    held_out = {*valid, *test}
    assert len(held_out) == 768
    shown = {tuple(map(int, question.split())) for question in valid}
    assert set(traces.ranked_puzzles()[800:900]) < shown
    assert not shown & set(TEST)
    drawn = [q for seed in range(2) for q in LEARNER.problems("train", 400, seed)]
    assert len(set(drawn)) > 550
    assert not set(drawn) & held_out
    assert {parse(question).target for question in drawn} == {24}
    assert LEARNER.problems("train", 50, 1) == LEARNER.problems("train", 50, 1)
    with pytest.raises(ConfigurationError, match="has 100 puzzles"):
        LEARNER.problems("test", 101, 0)


async def test_the_solver_knows_which_states_can_still_be_solved() -> None:
    begin, middle, lost = "5 * 6 = 30 (left: 4 10 30)", "30 - 10 = 20 (left: 4 20)", "30 - 4 = 26 (left: 10 26)"
    paths = [(), (begin, middle), (begin, lost), ("5 * 6 = 31 (left: 4 10 31)", "4 * 6 = 24 (left: 10 24)")]
    states = [State("4 5 6 10", tuple(map(Step, path))) for path in paths]
    scores = await LEARNER.solver().score(states)
    assert [score.rewards for score in scores] == [(1.0,), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)]
    pool = traces.pool(3, 4, 13, 20_000, 10_000, reserved=True).tokens
    sampled = pool[pool[:, 5] == v.NUMBER_0 + 24][:40]
    for row in sampled.tolist():  # against the exhaustive search above
        question, first = v.decode(row[:7]).strip(), v.decode(row[7:17]).strip()
        (score,) = await LEARNER.solver().score([State(question, (Step(first),))])
        assert score.rewards == (float(solvable(np.array(row))),)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees of the shipped policy's samples, and the rows that come of them, as `collect` writes them."""
    import asyncio

    folder = tmp_path_factory.mktemp("searched")
    asyncio.run(collect(folder))
    return folder


async def collect(folder: Path) -> None:
    from o1_reason_embedded import EmbeddedPolicy

    from o1_reason import Budget, search
    from o1_reason.learn.export import write_jsonl
    from o1_reason.learn.problems import VerifierChecker
    from o1_reason.learn.traces import trace_of
    from o1_reason.learn.trees import outcomes, preference_pairs, solutions, tree_outcomes

    policy, checker, budget = EmbeddedPolicy(), VerifierChecker(RuleVerifier()), Budget()
    found, stepwise, completions, pairs = [], [], [], []
    for question in LEARNER.problems("train", 8, 0):
        result = await search(question, policy, RuleVerifier(), "mcts", budget, seed=0)
        found.append(trace := trace_of(result, policy, RuleVerifier(), "mcts", budget))
        stepwise += [row async for row in tree_outcomes(trace, checker)]
        completions += [row async for row in solutions(trace, checker)]
        shares = {i: share for i, (share, _) in (await outcomes(trace, checker)).items()}
        pairs += list(preference_pairs(trace, values=shares))
    for name, rows in (("traces", found), ("stepwise", stepwise), ("completions", completions), ("pairs", pairs)):
        assert write_jsonl(rows, folder / f"{name}.jsonl")


def test_trees_and_the_rows_made_of_them_are_read_as_the_same_backups(searched: Path) -> None:
    whole, rows = corpus.groves(searched / "traces.jsonl"), corpus.groves(searched / "stepwise.jsonl")
    assert len(whole) == len(rows) == 8
    lines = (searched / "traces.jsonl").read_text().splitlines()
    for tree, grove, line in zip(whole, rows, lines, strict=True):
        texts = {node.step.text for node in Tree.from_data(json.loads(line)["tree"]).nodes if node.step}
        assert len(tree.row) >= len(texts)
        for one in (tree, grove):
            for node in range(len(one.row)):
                path = v.decode(one.tokens[one.row[node]][v.prompt_length(4) : one.at[node] + 1]).splitlines()
                assert set(path) <= texts
                above = one.parents[node]
                if above >= 0:  # the parent's path is the beginning of the child's
                    assert one.at[above] < one.at[node]
                    ends = one.at[above] + 1
                    above_row, row = one.tokens[one.row[above]], one.tokens[one.row[node]]
                    assert (above_row[:ends] == row[:ends]).all()
        ends = [
            (tuple(one.tokens[one.row[i]]), one.rewards[i]) for one in (tree, grove) for i in np.flatnonzero(one.ends)
        ]
        assert len(set(ends)) == tree.ends.sum(), "the same ends, worth the same"


def test_a_path_is_cut_where_it_is_no_step_and_the_rest_of_its_tree_is_kept(tmp_path: Path) -> None:
    good, other, odd = "5 * 6 = 30 (left: 4 10 30)", "30 - 10 = 20 (left: 4 20)", "30 - 4 = 26 (left: 26 <pad>)"
    tree = Tree("4 5 6 10")
    first, _ = tree.add(0, Step(good))
    broken, _ = tree.add(first.id, Step(odd))
    tree.add(broken.id, Step("26 + 10 = 36 (left: 36)", True, "36"))
    second, _ = tree.add(first.id, Step(other))
    tree.add(second.id, Step("20 + 4 = 24 (left: 24)", True, "5 * 6 - 10 + 4"))
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"tree": tree.to_data()}) + "\n")
    (grove,) = corpus.groves(data)
    assert grove.parents.tolist() == [-1, 0, 1]
    assert grove.rewards.tolist() == [0, 0, 1]
    assert grove.ends.tolist() == [False, False, True]
    row = {"prompt": "4 5 6 10", "completions": [good, odd, "x"], "labels": [0.5, 0.25, 0.0]}
    data.write_text(json.dumps(row) + "\n")
    (part,) = corpus.labelled(data)
    np.testing.assert_array_equal(part.labels, [[0.5, np.nan, np.nan]])
    pairs = [{"prompt": f"4 5 6 10\n{good}\n", "chosen": other, "rejected": text} for text in (odd, other)]
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (group,) = corpus.pairs(data)
    assert len(group.chosen) == 1
    data.write_text(json.dumps(pairs[0]) + "\n")
    with pytest.raises(ConfigurationError, match="no pair"):
        corpus.pairs(data)


@pytest.mark.parametrize(
    ("objective", "data"), [("classification", "stepwise"), ("regression", "stepwise"), ("td", "traces")]
)
def test_a_reward_model_learns_by_each_objective_and_repeats(
    objective: str, data: str, searched: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    for folder, epochs in (("a", 1), ("b", 1), ("c", 4)):
        lines.clear()
        record = LEARNER.train_prm(
            searched / f"{data}.jsonl", WEIGHTS, tmp_path / folder,
            objective=objective, seed=3, report=lines.append, fresh=True, epochs=epochs, batch=24, refresh=4,
        )  # fmt: skip
    assert record["objective"]["name"] == objective
    a, b = (load_file(tmp_path / folder / "prm.safetensors") for folder in ("a", "b"))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert LEARNER.verifier(tmp_path / "a")


def test_training_goes_on_from_the_reward_model_there_is(searched: Path, tmp_path: Path) -> None:
    settings = {
        "objective": "regression",
        "seed": 0,
        "report": lambda _: None,
        "epochs": 0.01,
        "muon": 0.0,
        "adam": 0.0,
    }
    LEARNER.train_prm(searched / "stepwise.jsonl", WEIGHTS, tmp_path, **settings)
    before, after = load_file(WEIGHTS / "prm.safetensors"), load_file(tmp_path / "prm.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_settings_that_a_trainer_does_not_have_are_refused(searched: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PRM has no setting 'epoch'"):
        LEARNER.train_prm(searched / "stepwise.jsonl", WEIGHTS, tmp_path, objective="td", seed=0, report=print, epoch=1)
    with pytest.raises(ConfigurationError, match="no weights at"):
        LEARNER.train_policy(searched / "pairs.jsonl", tmp_path, tmp_path, method="dpo", seed=0, report=print)


def likelihood(weights: Path, rows: dict[int, np.ndarray]) -> float:
    model = load(weights / "policy.safetensors", "cpu")
    with torch.no_grad():
        (ids,) = (torch.from_numpy(tokens.astype(np.int64)) for tokens in rows.values())
        return improve.log_probabilities(model, ids, ids.shape[1] - v.prompt_length(4)).sum(-1).mean().item()


def test_searched_solutions_become_likelier_and_a_share_of_base_traces_stays(searched: Path, tmp_path: Path) -> None:
    record = LEARNER.train_policy(
        searched / "completions.jsonl", WEIGHTS, tmp_path, method="sft", seed=0, report=lambda _: None,
        epochs=10, batch=16, base=0.5,
    )  # fmt: skip
    rows = corpus.solutions(searched / "completions.jsonl")
    assert record["steps"] == round(10 * len(rows[4]) / 16 / 0.5)
    assert likelihood(tmp_path, rows) > likelihood(WEIGHTS, rows) + 0.1
    base = {4: traces.pool(1, 4, 13, 20_000, 2_000).tokens[:200]}
    assert likelihood(tmp_path, base) > likelihood(WEIGHTS, base) - 1.0


def test_dpo_widens_the_margin_between_siblings(searched: Path, tmp_path: Path) -> None:
    LEARNER.train_policy(
        searched / "pairs.jsonl", WEIGHTS, tmp_path, method="dpo", seed=0, report=lambda _: None, epochs=8, batch=16
    )

    def margin(weights: Path) -> float:
        model, gaps = load(weights / "policy.safetensors", "cpu"), []
        for group in corpus.pairs(searched / "pairs.jsonl"):
            with torch.no_grad():
                better, worse = (
                    improve.log_probabilities(model, torch.from_numpy(ids.astype(np.int64)), ids.shape[1] - group.start)
                    for ids in (group.chosen, group.rejected)
                )
            gaps += (better.sum(-1) - worse.sum(-1)).tolist()
        return float(np.mean(gaps))

    assert margin(tmp_path) > margin(WEIGHTS) + 0.1


def test_grpo_raises_the_share_of_right_samples_of_what_it_trains_on(searched: Path, tmp_path: Path) -> None:
    record = LEARNER.train_policy(
        searched / "traces.jsonl", WEIGHTS, tmp_path, method="grpo", seed=0, report=lambda _: None,
        steps=16, prompts=12, group=8, updates=2, process=0.5, outcome=1.0, muon=2e-3,
    )  # fmt: skip
    prompts = np.repeat(corpus.prompts(searched / "traces.jsonl")[4], 32, 0)
    shares = [
        traces.check(rollouts.continuations(load(folder / "policy.safetensors", "cpu"), prompts, 4, 1.0, 5), 4).mean()
        for folder in (WEIGHTS, tmp_path)
    ]
    assert shares[1] > shares[0] + 0.03
    assert record["weights"] == {"process": 0.5, "outcome": 1.0}
