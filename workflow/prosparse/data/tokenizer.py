"""Train or copy the tokenizer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from prosparse.experiment.data import SpecialToken
from prosparse.models.third_party import save_tokenizer
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system.errors import ConfigError
from prosparse.system.files import discard, replace_directory

BOS, EOS = "<s>", "</s>"
SAMPLE_CHARACTERS = 1_000_000  # per corpus, to train the tokenizer on


def train_tokenizer(documents: list[Path], vocabulary_size: int, output: Path) -> None:
    """Train a byte-level BPE tokenizer on the corpora's train split, at most 1 M characters each, and save it.

    The encoding is lossless. As in LLaMA, each digit is one token and ``<s>`` comes first; padding is ``</s>``.
    The same documents give the same files.

    Args:
        documents: parquet files written by :func:`prosparse.data.documents.build`.
    """
    started = time.time()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(sorted(documents)), trainer)
    if tokenizer.get_vocab_size() != vocabulary_size:
        raise ConfigError(
            f"tokenizer {output.name}: the corpora give only {tokenizer.get_vocab_size()} of {vocabulary_size} tokens"
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS, clean_up_tokenization_spaces=False
    )
    _save(fast, output)
    seconds = time.time() - started
    print(
        f"tokenizer {output.name}: {vocabulary_size} tokens from {len(documents)} corpora, {seconds:.1f} s", flush=True
    )


def copy_tokenizer(
    pretrained: str,
    output: Path,
    gguf_file: str | None = None,
    special_tokens: Mapping[SpecialToken, str] | None = None,
    revision: str | None = None,
) -> None:
    """Save an existing tokenizer.

    Args:
        pretrained: a Hugging Face id or a directory.
        gguf_file: the GGUF file to read the tokenizer from, inside ``pretrained``.
        special_tokens: ``bos_token``, ``eos_token`` and ``pad_token`` that replace the tokenizer's own.
        revision: revision of a Hugging Face id.

    Raises:
        ConfigError: the tokenizer cannot be opened or has no end-of-text token, or a special token is not in the
            vocabulary.
    """
    tokenizer = open_tokenizer(pretrained, revision, gguf_file)
    vocabulary = tokenizer.get_vocab()
    for key, token in (special_tokens or {}).items():
        if token not in vocabulary:
            raise ConfigError(
                f"tokenizer {output.name}: special_tokens.{key}: {token!r} is not one token of the {len(vocabulary)} "
                f"of {gguf_file or pretrained}"
            )
        setattr(tokenizer, key, token)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"tokenizer {output.name}: {pretrained} has no end-of-text token, which separates documents")
    _save(tokenizer, output)


def _save(tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    temporary = output.with_name(f".{output.name}.partial")
    discard(temporary)  # left by an interrupted call
    save_tokenizer(tokenizer, temporary)
    replace_directory(temporary, output)


def _sample(documents: list[Path]) -> Iterator[str]:
    for path in documents:
        characters = 0
        for batch in pq.ParquetFile(path).iter_batches(columns=["text", "split"]):
            for text, split in zip(batch["text"].to_pylist(), batch["split"].to_pylist(), strict=True):
                if split == "train" and characters < SAMPLE_CHARACTERS:
                    characters += len(text)
                    yield text
