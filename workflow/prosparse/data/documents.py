"""Documents of a corpus: cleaned, deduplicated, decontaminated, split into train and held-out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prosparse import provenance
from prosparse.config import ConfigError, Corpus, HubSource
from prosparse.data import sources

MINIMUM_CHARACTERS = 20
HELDOUT_FRACTION = 0.04  # of the characters, or more where the wanted held-out text needs it
HELDOUT_LARGEST_FRACTION = 0.2

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
_WORD = re.compile(r"[^\W_]+")


def build(
    name: str,
    corpus: Corpus,
    archive: Path | None,
    contamination: Path | None,
    ngram: int,
    heldout_characters: int,
    seed: int,
    output_parquet: Path,
    output_json: Path,
) -> None:
    """Write a corpus as parquet (columns ``text``, ``split``) and the counts of each step as JSON.

    A document's place is decided by a hash of its text and ``seed``: the documents of lowest hash
    are held out until they have ``heldout_characters`` characters (at least 4 %, at most 20 % of
    the corpus), the rest are kept, in order of hash, up to ``character_limit``. A Hugging Face
    data set is read only until the limit is reached. The corpus is held in memory.

    Args:
        archive: the fetched package, for a package source.
        contamination: index of :func:`contamination_index`; None keeps every document.

    Raises:
        ConfigError: the source's options, files or columns; ValueError: no document is left.
    """
    started = time.time()
    documents = sources.read(name, corpus, archive)
    prose = sources.is_prose(corpus)
    leaked = np.load(contamination) if contamination else None
    count = {"read": 0, "too_short": 0, "duplicates_removed": 0, "contaminated_removed": 0}
    kept: dict[int, str] = {}
    characters = 0
    for document in documents:
        count["read"] += 1
        text = clean(document, prose)
        if len(text) < MINIMUM_CHARACTERS:
            count["too_short"] += 1
            continue
        key = identity(text, seed)
        if key in kept:
            count["duplicates_removed"] += 1
            continue
        if leaked is not None and is_contaminated(text, leaked, ngram):
            count["contaminated_removed"] += 1
            continue
        kept[key] = text
        characters += len(text)
        if isinstance(corpus.source, HubSource) and corpus.character_limit and characters >= corpus.character_limit:
            break
        if count["read"] % 20000 == 0:
            speed = count["read"] / (time.time() - started)
            print(f"{name}: {count['read']} documents read, {speed:.0f}/s", flush=True)

    texts = [kept[key] for key in sorted(kept)]
    texts = texts[: _first(texts, corpus.character_limit)] if corpus.character_limit else texts
    if not texts:
        raise ConfigError(f"corpus {name}: no document left of {count['read']} read ({count})")
    total = sum(map(len, texts))
    share = min(max(HELDOUT_FRACTION * total, heldout_characters), HELDOUT_LARGEST_FRACTION * total)
    heldout = _first(texts, share)
    table = pa.table({"text": texts, "split": ["heldout"] * heldout + ["train"] * (len(texts) - heldout)})
    output_parquet.parent.mkdir(parents=True, exist_ok=True)
    temporary = output_parquet.with_name(output_parquet.name + ".partial")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, output_parquet)

    heldout_total = sum(map(len, texts[:heldout]))
    counts: dict[str, Any] = {
        "corpus": name,
        "stands_for": corpus.stands_for,
        "stand_in": corpus.stand_in,
        "kind": corpus.kind,
        **count,
        "after_cleaning": count["read"] - count["too_short"],
        "over_character_limit": len(kept) - len(texts),
        "documents": {"train": len(texts) - heldout, "heldout": heldout},
        "characters": {"train": total - heldout_total, "heldout": heldout_total},
        "contamination_ngrams": None if leaked is None else len(leaked),
    }
    specification = {"corpus": corpus.model_dump(), "ngram": ngram, "seed": seed, "heldout": heldout_characters}
    provenance.write_json(output_json, {**counts, "provenance": provenance.record(specification, started)})
    seconds = time.time() - started
    print(f"{name}: {len(texts)} documents, {total / 1e6:.2f} M characters, {seconds:.1f} s; {count}", flush=True)


def _first(texts: list[str], characters: float) -> int:
    """How many of the first texts reach ``characters`` (at least one)."""
    ends = np.cumsum([len(text) for text in texts])
    return min(int(np.searchsorted(ends, characters)) + 1, len(texts))


def clean(text: str, prose: bool) -> str:
    """NFC, ``\\n`` line ends, no control characters or trailing spaces, at most two blank lines.

    In ``prose`` runs of spaces become one and there is at most one blank line; in code the
    indentation stays.
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[ \t]+\n", "\n", _CONTROL.sub("", text))
    if prose:
        text = re.sub(r"[ \t\u00a0]+", " ", text)
        return re.sub(r"\n{3,}", "\n\n", text).strip()
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n").rstrip()


def identity(text: str, seed: int) -> int:
    """64-bit hash of the text without regard to case and white space; equal means duplicate."""
    normalised = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(normalised.encode(), digest_size=8, key=str(seed).encode()).digest(), "big")


# ---------------------------------------------------------------------------- contamination


def contamination_index(rows: Path, ngram: int, output: Path) -> None:
    """Write the sorted hashes (uint64, .npy) of every ``ngram`` words in the rows of ``rows/*.jsonl``.

    Words are lower-cased alphanumerics; an n-gram lies within one string of a row, at any depth.
    """
    started = time.time()
    files = sorted(rows.glob("*.jsonl"))
    if not files:
        raise ConfigError(f"no benchmark rows in {rows}: nothing to decontaminate against")
    parts = [np.empty(0, np.uint64)]
    for file in files:
        with open(file) as lines:
            parts.append(ngram_hashes((text for line in lines for text in _strings(json.loads(line))), ngram))
    index = np.sort(np.concatenate(parts))
    index = index[np.flatnonzero(np.diff(index, prepend=~index[:1]))]  # distinct
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(output.name + ".partial.npy")
    np.save(temporary, index)
    os.replace(temporary, output)
    print(f"{len(index)} distinct {ngram}-grams in {len(files)} benchmarks, {time.time() - started:.1f} s", flush=True)


def is_contaminated(text: str, index: np.ndarray, ngram: int) -> bool:
    """Whether ``text`` has ``ngram`` consecutive words of the index."""
    hashes = ngram_hashes([text], ngram)
    if not len(hashes) or not len(index):
        return False
    return bool((index[np.minimum(np.searchsorted(index, hashes), len(index) - 1)] == hashes).any())


def ngram_hashes(texts: Iterable[str], ngram: int) -> np.ndarray:
    """uint64 hash of every ``ngram`` consecutive words within each text: a polynomial of word hashes."""
    words: list[int] = []
    lengths: list[int] = []
    for text in texts:
        found = _WORD.findall(text.lower())
        if len(found) >= ngram:
            words.extend(map(_word_hashes.__getitem__, found))
            lengths.append(len(found))
    count = len(words) - ngram + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    values = np.array(words, np.uint64)
    hashes = np.zeros(count, np.uint64)
    for offset in range(ngram):  # wraps modulo 2^64, as intended
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + values[offset : offset + count]
    if len(lengths) > 1:
        owner = np.repeat(np.arange(len(lengths)), lengths)
        hashes = hashes[owner[:count] == owner[ngram - 1 :]]
    return hashes


class _WordHashes(dict[str, int]):
    """Hashes of words, each computed once."""

    def __missing__(self, word: str) -> int:
        value = self[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        return value


_word_hashes = _WordHashes()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
