"""The training code: its data, its model against the numpy runtime, and the whole recipe at a tiny scale."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from o1_reason_embedded import vocab as v
from o1_reason_embedded.policy import WEIGHTS
from o1_reason_embedded.runtime import Cache, Decoder
from safetensors.numpy import load_file

torch = pytest.importorskip("torch", reason="training needs PyTorch: pip install 'o1-reason[train]'")

from o1_reason_embedded.train import rollouts, traces  # noqa: E402
from o1_reason_embedded.train.model import load, orthogonal  # noqa: E402

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
    assert len(states) > 100
    assert not states & set(TEST)
    assert not states & set(traces.ranked_puzzles()[800:900]), "validation puzzles are kept apart, too"


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
