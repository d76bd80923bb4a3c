"""The embedded models in the formats of other servers: ``python -m o1_reason_embedded.export FORMAT FOLDER``.

Weights go out as float32, so that a server computes what the numpy runtime computes.
"""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from safetensors.numpy import load_file, save_file

from o1_reason.errors import ConfigurationError

from . import vocab as v
from .policy import WEIGHTS
from .runtime import Array, Shape, decoder

# Messages one after the other, each closed by a line feed, no roles and nothing to open a reply: the training text.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- message['content'] -}}"
    "{%- if not message['content'].endswith('\\n') -%}{{- '\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
)
# Plain sampling unless a request says otherwise: transformers' own default is greedy at any temperature.
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
# The longer symbols first: "->" is no "-".
TOKEN = "|".join([r"\d+", *map(re.escape, sorted(v.SYMBOLS[v.NEWLINE :], key=len, reverse=True))])
# Line feed and space as a byte-level tokenizer writes them. It is byte-level only because transformers then looks stop
# strings up token by token; with other decoders it needs a vocabulary with letters for that.
LF, SPACE = "Ċ", "Ġ"


def export_hf(folder: Path, weights: Path) -> None:
    """The policy as `LlamaForCausalLM`: for vLLM, SGLang, TGI and `transformers serve`."""
    shape = decoder(weights).shape
    config = _config(shape) | {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": False}
    save_file(_tensors(weights), folder / "model.safetensors", {"format": "pt"})
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"eos_token_id": v.EOS, "pad_token_id": v.PAD} | SAMPLING)
    _write_tokenizer(folder)


def export_hf_prm(folder: Path, weights: Path) -> None:
    """The process reward model as `Qwen2ForProcessRewardModel`: for vLLM's token-wise pooling.

    Its head is linear, ReLU, linear and a softmax over two classes. With z the reward logit, hidden units relu(z) and
    relu(-z) and class logits 0 and relu(z) - relu(-z) = z, class 1 has the probability sigmoid(z), exactly.
    """
    shape = decoder(weights).shape
    # Not of type qwen2: AutoTokenizer would put Qwen2's own rules in place of the tokenizer's.
    config = _config(shape) | {"model_type": "llama", "architectures": ["Qwen2ForProcessRewardModel"], "num_labels": 2}
    tensors = _tensors(weights, outputs=1)
    head = tensors.pop("lm_head.weight")
    for i in range(shape.layers):
        for part in "qkv":  # Qwen2 has biases here
            tensors[f"model.layers.{i}.self_attn.{part}_proj.bias"] = np.zeros(shape.width, np.float32)
    hidden = np.zeros((shape.width, shape.width), np.float32)
    hidden[0], hidden[1] = head[0], -head[0]
    classes = np.zeros((2, shape.width), np.float32)
    classes[1, :2] = 1, -1
    tensors |= {
        "score.0.weight": hidden, "score.0.bias": np.zeros(shape.width, np.float32),
        "score.2.weight": classes, "score.2.bias": np.zeros(2, np.float32),
    }  # fmt: skip
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    _write(folder / "config.json", config)
    _write_tokenizer(folder)


def export_gguf(folder: Path, weights: Path) -> None:
    """The policy as ``model.gguf``: for llama.cpp and what is built on it. Raises ConfigurationError without gguf."""
    try:
        import gguf
    except ImportError as error:
        raise ConfigurationError("GGUF files are written by the package gguf: pip install gguf") from error
    shape = decoder(weights).shape
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(shape.theta)
    _add_vocabulary(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.layers).mapping
    for name, tensor in _tensors(weights).items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = _interleaved(tensor, shape.heads)
        writer.add_tensor(names[name.removesuffix(".weight")][1] + ".weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any) -> None:
    """llama.cpp's unigram tokenizer ("t5") sets one space before every word, whatever the text has, so a symbol is the
    same token wherever it stands. Generated lines, too, begin with that space; what ends a line has none."""
    from gguf import TokenType

    kinds = dict.fromkeys(range(v.VOCAB_SIZE), TokenType.NORMAL)
    kinds |= {v.PAD: TokenType.UNKNOWN, v.EOS: TokenType.CONTROL}
    kinds |= dict.fromkeys((v.NEWLINE, v.CLOSE), TokenType.USER_DEFINED)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([("▁" if kind == TokenType.NORMAL else "") + v.decode([i]) for i, kind in kinds.items()])
    writer.add_token_scores([0.0] * v.VOCAB_SIZE)
    writer.add_token_types(list(kinds.values()))
    writer.add_unk_token_id(v.PAD)
    writer.add_pad_token_id(v.PAD)
    writer.add_eos_token_id(v.EOS)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _interleaved(tensor: Array, heads: int) -> Array:
    """Rows of a query or key projection as llama.cpp rotates them: neighbours, where Hugging Face takes halves."""
    halves = tensor.reshape(heads, 2, -1, tensor.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))


def _tensors(weights: Path, outputs: int = v.VOCAB_SIZE) -> dict[str, Array]:
    tensors = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in load_file(weights).items()}
    if len(tensors["lm_head.weight"]) != outputs:
        raise ConfigurationError(f"{weights} is the other model: hf and gguf take a policy, hf-prm a reward model")
    return tensors


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": v.VOCAB_SIZE,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-6,
        "rope_theta": shape.theta,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": v.EOS,
        "pad_token_id": v.PAD,
        "torch_dtype": "float32",
    }


def _write_tokenizer(folder: Path) -> None:
    special = [
        {"id": i, "content": v.SYMBOLS[i], "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i in (v.PAD, v.EOS)
    ]
    spaces = {"type": "Split", "pattern": {"Regex": " +"}, "behavior": "Removed", "invert": False}
    tokens = {"type": "Split", "pattern": {"Regex": TOKEN}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [spaces, tokens, byte_level]},
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "WordPiece", "prefix": "##", "cleanup": False},  # a space between any two tokens,
                {"type": "Fuse"},  # but none round the end of a line
                {"type": "Replace", "pattern": {"Regex": f"(?<={LF}) | (?=\\)?{LF})"}, "content": ""},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
                byte_level,
            ],
        },
        "model": {
            "type": "WordLevel",
            "vocab": {v.decode([i]).replace("\n", LF): i for i in range(v.VOCAB_SIZE)},
            "unk_token": v.SYMBOLS[v.PAD],
        },
    }  # fmt: skip
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": v.SYMBOLS[v.EOS],
        "pad_token": v.SYMBOLS[v.PAD],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": CHAT_TEMPLATE,
    }
    _write(folder / "tokenizer.json", tokenizer)
    _write(folder / "tokenizer_config.json", config)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class Format(StrEnum):
    hf = "hf"
    hf_prm = "hf-prm"
    gguf = "gguf"


def export(format: Format, folder: Path, weights: Path | None = None) -> None:
    """Write the model of `format` into `folder`; `weights` None: the ones in the package.

    Raises ConfigurationError where a package is missing or the weights are of the other model.
    """
    writers: dict[Format, Callable[[Path, Path], None]] = {
        Format.hf: export_hf, Format.hf_prm: export_hf_prm, Format.gguf: export_gguf,
    }  # fmt: skip
    name = "prm" if format is Format.hf_prm else "policy"
    folder.mkdir(parents=True, exist_ok=True)
    writers[format](folder, weights or WEIGHTS / f"{name}.safetensors")


def main(
    format: Annotated[Format, typer.Argument(help="hf and gguf: the policy; hf-prm: the process reward model.")],
    folder: Annotated[Path, typer.Argument(help="Where the files go; made if it is not there.")],
    weights: Annotated[Path | None, typer.Option(help="Weights of your own; default: those in the package.")] = None,
) -> None:
    """Export the embedded models for other servers. No PyTorch needed; gguf needs `pip install gguf`.

    \b
    The policy, as a small model to try adapters and servers with:
      python -m o1_reason_embedded.export hf embedded
      transformers serve embedded --port 8000
      vllm serve embedded --dtype float32 --port 8000
      python -m o1_reason_embedded.export gguf embedded
      llama-server --model embedded/model.gguf --port 8000 --top-k 0 --top-p 1 --min-p 0 --temp 1

    \b
    The reward model, on POST /pooling, one score per step:
      python -m o1_reason_embedded.export hf-prm embedded-prm
      vllm serve embedded-prm --dtype float32 --port 8001 --runner pooling \\
        --pooler-config '{"pooling_type": "STEP", "step_tag_id": 10}'

    \b
    A prompt is the numbers in order, an arrow, the target and a line feed; the reply is one step a line:
      curl http://127.0.0.1:8000/v1/completions --json \\
        '{"model": "embedded", "prompt": "4 9 10 13 -> 24\\n", "max_tokens": 40}'
    """
    if weights is not None and not weights.is_file():
        raise typer.BadParameter(f"there is no file {weights}")
    try:
        export(format, folder, weights)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"written: {', '.join(sorted(str(path) for path in folder.iterdir()))}")


if __name__ == "__main__":
    typer.run(main)
