"""A random Llama with a token a character, for tests that run the real trainers and the real sampling on a CPU."""

from typing import Any

ALPHABET = [*"0123456789 +-*/=():left>\n", "<extra_0>", "<s>", "</s>", "<pad>"]


def tokenizer(more: str = "") -> Any:
    """A token a character; one that is neither in ALPHABET nor in `more` is read as a blank."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys([*ALPHABET, *more])
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=" "))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    return made


def byte_pairs() -> Any:
    """Byte-level BPE as Llama 3 and Qwen have it, learned here: tokens such as ".\\n\\n" reach over what is written."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    text = ["1 + 1 = 2.\n\nAnswer: 2.\n\n(= 4)\n\n4 + 4\n\n" * 3] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>", "<pad>"],
        show_progress=False,
    )  # fmt: skip
    raw.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def llama(kind: str, words: Any = None, **more: Any) -> Any:
    """A `LlamaFor<kind>` with random weights, always the same, for the tokenizer `words`."""
    import torch
    import transformers

    torch.manual_seed(0)
    words = words or tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, **more,
    )  # fmt: skip
    return getattr(transformers, f"LlamaFor{kind}")(config)
