"""Tokenizers of every kind that decoders come with, trained in memory on a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LINES = [
    "The quick brown fox jumps over the lazy dog, and the dog doesn't mind.",
    "Question: is it 10 or 42? Answer: yes, it's 42!",
    "def double(x):\n    return 2 * x\n",
    "naïve café, 你好世界, Ελλάδα, \U0001f600",
] * 4


def _begins_with(tokenizer: Tokenizer, token: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, tokenizer.token_to_id(token))]
    )


def _byte_level(*special: str) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        LINES[:3],
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def byte_level_bos() -> PreTrainedTokenizerFast:
    """Llama 3's kind."""
    made = _byte_level("<s>", "</s>")
    _begins_with(made, "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def byte_level_unused_bos() -> PreTrainedTokenizerFast:
    """GPT-2's and SmolLM2's kind: one token that begins and ends texts, and is not added."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level("<|endoftext|>"), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def byte_level_no_bos() -> PreTrainedTokenizerFast:
    """Qwen's kind, with a padding token of its own."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level("<|end|>", "<|pad|>"), eos_token="<|end|>", pad_token="<|pad|>"
    )


def sentencepiece_bos() -> PreTrainedTokenizerFast:
    """LLaMA's kind: BPE on spaces made visible, with a token per byte for what is not in the vocabulary."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    held = ["<unk>", "<s>", "</s>"]
    with_bytes = [*held, *(AddedToken(f"<0x{byte:02X}>", normalized=False) for byte in range(256))]
    made.train_from_iterator(
        LINES[:2], trainers.BpeTrainer(vocab_size=340, special_tokens=with_bytes, show_progress=False)
    )
    bare = Tokenizer(models.BPE(*_bpe_parts(made), byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bare.normalizer, bare.decoder = made.normalizer, made.decoder
    bare.add_special_tokens(held)
    _begins_with(bare, "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _bpe_parts(made: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a trained BPE, its byte tokens ordinary ones."""
    import json

    model = json.loads(made.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def unigram() -> PreTrainedTokenizerFast:
    """T5's and XLNet's kind, as a decoder: no beginning-of-sequence token."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        LINES,
        trainers.UnigramTrainer(
            vocab_size=150, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's kind, as a decoder: lower case, spaces cleaned up when decoded, no beginning-of-sequence token."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=False)
    made.train_from_iterator(
        LINES,
        trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[PAD]", "[UNK]", "[SEP]"], show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        clean_up_tokenization_spaces=True,
    )


def nothing_special() -> PreTrainedTokenizerFast:
    """Bytes only: no token begins, ends or pads a text."""
    return PreTrainedTokenizerFast(tokenizer_object=_byte_level())


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    each.__name__: cache(each)
    for each in (
        byte_level_bos, byte_level_unused_bos, byte_level_no_bos, sentencepiece_bos, unigram, word_piece,
        nothing_special,
    )
}  # fmt: skip


def tiny_for(tokenizer: PreTrainedTokenizerFast, seed: int = 0, context: int = 128) -> LlamaForCausalLM:
    """A random model of its vocabulary, rows padded to a multiple of 64; far from even in what it says."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=-(-len(tokenizer) // 64) * 64,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    # rows without a token, and those that end a text at once, are not said
    model.lm_head.weight.data[len(tokenizer) :] = 0
    return model


def texts() -> Iterator[str]:
    """Prompts: of several lengths and scripts."""
    yield from (
        "Question: is it 42?",
        "The dog",
        "x",
        "naïve 你好 \U0001f600",
        "def double(x):\n    return",
        "It's the fox, isn't it?",
    )
