"""The exported files, read by the libraries that servers read them with. `tests/integration` has the servers."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from o1_reason_embedded import vocab as v
from o1_reason_embedded.export import CHAT_TEMPLATE, Format, export
from o1_reason_embedded.policy import WEIGHTS
from safetensors.numpy import load_file

from o1_reason import ConfigurationError

NUMBER = st.integers(0, v.MAX_NUMBER).map(lambda number: v.NUMBER_0 + number)


@st.composite
def traces(draw):
    """Token ids of a prompt and of all its steps: 3 to 5 numbers, any content."""
    numbers = draw(st.lists(NUMBER, min_size=3, max_size=5))
    ids = [*numbers, v.ARROW, draw(NUMBER), v.NEWLINE]
    for left in range(len(numbers) - 1, 0, -1):
        ids += [draw(NUMBER), draw(st.sampled_from(v.OPERATORS)), draw(NUMBER), v.EQUALS, draw(NUMBER), v.LEFT]
        ids += [*draw(st.lists(NUMBER, min_size=left, max_size=left)), v.CLOSE]
    return ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    export(Format.hf, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    tokenizers = pytest.importorskip("tokenizers", reason="reads the exported tokenizer where it is installed")
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@given(traces(), st.data())
def test_the_tokenizer_reads_and_writes_every_part_of_a_trace_as_the_models_do(tokenizer, ids, data):
    start = data.draw(st.integers(0, len(ids) - 1))
    end = data.draw(st.integers(start + 1, len(ids)))
    text = v.decode(ids[:end])
    assert tokenizer.encode(text).ids == v.encode(text) == ids[:end]
    assert tokenizer.decode(ids[:end]) == text
    assert tokenizer.decode(ids[start:end]) == v.decode(ids[start:end])


@given(traces())
def test_spaces_do_not_matter_and_the_end_of_sequence_is_not_text(tokenizer, ids):
    text = v.decode(ids)
    assert tokenizer.encode(text.replace("\n", " \n  ").replace(" = ", "=").replace(") \n", ")\n")).ids == ids
    assert tokenizer.decode([*ids, v.EOS]) == text


def test_what_is_outside_the_vocabulary_is_unknown_and_never_something_else(tokenizer):
    assert tokenizer.encode("4 + what 320").ids == [v.NUMBER_0 + 4, v.PLUS, v.PAD, v.PAD]


@given(traces(), st.integers(0, 5), st.booleans())
def test_a_chat_is_the_models_own_text_and_nothing_else(ids, steps, final_newline):
    jinja2 = pytest.importorskip("jinja2", reason="renders the chat template where it is installed")
    lines = v.decode(ids).splitlines(keepends=True)
    question, reply = lines[0], "".join(lines[1 : 1 + steps])
    messages = [("user", question), ("assistant", reply)] if reply else [("user", question)]
    shown = [{"role": role, "content": text if final_newline else text.removesuffix("\n")} for role, text in messages]
    template = jinja2.Template(CHAT_TEMPLATE)
    for add_generation_prompt in (True, False):
        text = template.render(messages=shown, add_generation_prompt=add_generation_prompt, bos_token="<bos>")
        assert text == question + reply


def test_weights_are_the_packages_own_in_float32(folder):
    exported, original = load_file(folder / "model.safetensors"), load_file(WEIGHTS / "policy.safetensors")
    assert exported.keys() == original.keys()
    for name, tensor in exported.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, original[name])


def test_the_reward_head_is_a_sigmoid_written_as_a_softmax_of_two_classes(tmp_path):
    export(Format.hf_prm, tmp_path)
    w, original = load_file(tmp_path / "model.safetensors"), load_file(WEIGHTS / "prm.safetensors")
    hidden = np.random.default_rng(0).normal(0, 3, (100, 128)).astype(np.float32)
    units = np.maximum(hidden @ w["score.0.weight"].T + w["score.0.bias"], 0)
    wrong, right = (units @ w["score.2.weight"].T + w["score.2.bias"]).T
    z = (hidden @ original["lm_head.weight"].astype(np.float32).T)[:, 0]
    np.testing.assert_allclose(np.exp(right) / (np.exp(wrong) + np.exp(right)), 1 / (1 + np.exp(-z)), atol=1e-6)
    biases = [tensor for name, tensor in w.items() if name.endswith("proj.bias")]
    assert len(biases) == 12
    assert not any(bias.any() for bias in biases)
    assert "lm_head.weight" not in w


def test_a_gguf_file_holds_every_tensor_once_and_the_vocabulary(tmp_path):
    gguf = pytest.importorskip("gguf", reason="reads the GGUF file where it is installed")
    export(Format.gguf, tmp_path)
    file = gguf.GGUFReader(tmp_path / "model.gguf")
    tensors = {tensor.name: tensor.data for tensor in file.tensors}
    original = load_file(WEIGHTS / "policy.safetensors")
    assert len(tensors) == len(original)
    plain = original["model.layers.1.self_attn.v_proj.weight"]
    np.testing.assert_array_equal(tensors["blk.1.attn_v.weight"], plain.astype(np.float32))
    query = original["model.layers.1.self_attn.q_proj.weight"].astype(np.float32).reshape(4, 32, 128)
    turned = tensors["blk.1.attn_q.weight"].reshape(4, 32, 128)  # by head: row i beside row i + 16
    np.testing.assert_array_equal(turned[:, 0::2], query[:, :16])
    np.testing.assert_array_equal(turned[:, 1::2], query[:, 16:])
    words = file.get_field("tokenizer.ggml.tokens").contents()
    assert [word.removeprefix("▁") for word in words] == [v.decode([i]) for i in range(v.VOCAB_SIZE)]


def test_gguf_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigurationError, match="pip install gguf"):
        export(Format.gguf, tmp_path)


@pytest.mark.parametrize(("format", "name"), [(Format.hf, "prm"), (Format.hf_prm, "policy")])
def test_weights_of_the_other_model_are_refused(format, name, tmp_path):
    with pytest.raises(ConfigurationError, match="is the other model"):
        export(format, tmp_path, WEIGHTS / f"{name}.safetensors")


def command(*arguments):
    line = [sys.executable, "-m", "o1_reason_embedded.export", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_the_command_exports_and_needs_no_torch(tmp_path):
    ran = command("hf", tmp_path / "new" / "model")
    assert ran.returncode == 0, ran.stderr
    config = json.loads((tmp_path / "new" / "model" / "config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"]) == (v.VOCAB_SIZE, v.EOS)
    code = "import sys, o1_reason_embedded.export; print(*sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""


def test_the_commands_help_shows_how_to_serve_what_it_writes():
    text = command("--help").stdout
    assert f'"step_tag_id": {v.CLOSE}' in text
    assert all(server in text for server in ("vllm serve", "transformers serve", "llama-server", "--runner pooling"))


def test_a_mistake_on_the_command_line_is_explained(tmp_path):
    wrong = command("hf-prm", tmp_path, "--weights", WEIGHTS / "policy.safetensors")
    assert wrong.returncode == 2
    assert "is the other model" in wrong.stderr
    assert "there is no file" in command("hf", tmp_path, "--weights", tmp_path / "nothing").stderr
