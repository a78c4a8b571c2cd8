"""Encode corpora and pack them into rows of tokens."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from prosparse.data.shards import replace_rows, rewriting, share
from prosparse.experiment.data import MeasuredSplit
from prosparse.system import identity, provenance
from prosparse.system.errors import ConfigError
from prosparse.system.files import write_json

FEWEST_HELDOUT_SEQUENCES = 4


def tokenize(
    corpus: str,
    documents: Path,
    tokenizer: Path,
    context_length: int,
    sequences: Mapping[MeasuredSplit, int],
    output: Path,
    shard: int = 0,
    shards: int = 1,
) -> dict[str, Any]:
    """Encode a shard of a corpus and pack it into rows of ``context_length`` tokens.

    The tokenizer adds its usual special tokens to each document (``<s>`` first, for LLaMA's and ours), and
    end-of-text closes it. The documents are concatenated and cut into rows; the incomplete last row is dropped.
    Special tokens spelled out in a text are encoded as ordinary text.

    Writes ``output/train`` and each split of ``sequences`` (``datasets``, column ``input_ids``), then
    ``output/manifest.json``, and returns the manifest. ``heldout_bytes`` and ``tuning_bytes`` count the UTF-8 bytes of
    the tokens that a model predicts (all but the first of each row); special tokens count as 0.

    Args:
        sequences: rows of the whole corpus per split; a shard writes its share of them. Held-out text that is too short
            for all is divided in the same proportion.

    Raises:
        ConfigError: there are fewer than 4 held-out rows (for a shard, fewer than its share of 4), or no train row.
    """
    started = time.time()
    wanted = {split: len(share(rows, shard, shards)) for split, rows in sequences.items()}
    fewest_heldout = len(share(FEWEST_HELDOUT_SEQUENCES, shard, shards))
    label = corpus if shards == 1 else f"{corpus}, shard {shard} of {shards}"
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    commit = (pq.read_schema(documents).metadata or {}).get(b"commit")
    with rewriting(output) as temporary:
        rows: dict[str, datasets.Dataset] = {}
        for split in ("train", "heldout"):
            texts = datasets.Dataset.from_parquet(
                str(documents), cache_dir=f"{temporary}/cache/{split}", filters=[("split", "==", split)]
            )
            packed = pack(texts, encoder, context_length)
            rows |= {"train": packed} if split == "train" else divide(packed, wanted)
        for split, fewest in (("train", 1), ("heldout", fewest_heldout)):
            if len(rows[split]) < fewest:
                raise ConfigError(
                    f"corpus {label}: {len(rows[split])} {split} sequences of {context_length} tokens, needs at least "
                    f"{fewest}; give it more text or lower data.context_length"
                )
        for split, chosen in rows.items():
            chosen.save_to_disk(temporary / split)
        manifest = {
            "corpus": corpus,
            "commit": commit.decode() if commit else None,
            "context_length": context_length,
            "tokens": sum(map(len, rows.values())) * context_length,
            **{f"{split}_sequences": len(chosen) for split, chosen in rows.items()},
            **{f"{split}_bytes": predicted_bytes(rows[split], encoder) for split in wanted},
        }
        del rows  # their files are in the temporary directory
        manifest["sha256"] = {split: identity.of_rows(temporary / split) for split in ("train", *wanted)}
        replace_rows(temporary, output, ("train", *wanted))
    specification = {"corpus": corpus, "context_length": context_length, "sequences": dict(sequences)}
    specification["tokenizer"] = hashlib.sha256((tokenizer / "tokenizer.json").read_bytes()).hexdigest()
    manifest["provenance"] = provenance.record(specification, started)
    write_json(output / identity.MANIFEST, manifest)
    seconds = time.time() - started
    print(f"{label}: {manifest['tokens']} tokens, {seconds:.1f} s", flush=True)
    return manifest


def pack(texts: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, context_length: int) -> datasets.Dataset:
    """Pack column ``text`` into rows of exactly ``context_length`` tokens; end-of-text closes each document.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"{tokenizer.name_or_path}: the tokenizer has no end-of-text token, which separates documents"
        )
    pending: list[int] = []  # tokens that do not fill a row yet; needs one process that maps the batches in order

    def batch(columns: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        for tokens in tokenizer(columns["text"], split_special_tokens=True)["input_ids"]:
            pending.extend(tokens)
            if not tokens or tokens[-1] != tokenizer.eos_token_id:
                pending.append(tokenizer.eos_token_id)
        end = len(pending) // context_length * context_length
        rows = [pending[start : start + context_length] for start in range(0, end, context_length)]
        del pending[:end]
        return {"input_ids": rows}

    features = datasets.Features({"input_ids": datasets.List(datasets.Value("int32"), length=context_length)})
    columns = texts.column_names
    return texts.map(batch, batched=True, remove_columns=columns, features=features, load_from_cache_file=False)


def spread(rows: datasets.Dataset, limit: int) -> datasets.Dataset:
    """Select at most ``limit`` evenly spaced rows, so that they come from as many documents as possible."""
    return rows if len(rows) <= limit else rows.select([index * len(rows) // limit for index in range(limit)])


def divide(rows: datasets.Dataset, wanted: Mapping[MeasuredSplit, int]) -> dict[str, datasets.Dataset]:
    """Spread the wanted rows over the documents and divide them into splits, which alternate.

    Where there are fewer rows than are wanted in all, each split gets its proportion.
    """
    total, tuning = sum(wanted.values()), wanted.get("tuning", 0)
    chosen = spread(rows, total)
    splits = ["tuning" if (row + 1) * tuning // total > row * tuning // total else "heldout" for row in range(total)]
    return {split: chosen.select([row for row in range(len(chosen)) if splits[row] == split]) for split in wanted}


def predicted_bytes(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the UTF-8 bytes of all tokens but the first of each row; special tokens count as 0."""
    texts = tokenizer.batch_decode(
        [row[1:] for row in rows["input_ids"]], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return sum(len(text.encode()) for text in texts)
