"""Documents of a corpus: cleaned, deduplicated, decontaminated, split into train and held-out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prosparse import provenance
from prosparse.config import ConfigError, Corpus, HubSource
from prosparse.data import hub, sources
from prosparse.data.shards import share
from prosparse.files import write_json

MINIMUM_CHARACTERS = 20
HELDOUT_FRACTION = 0.04  # of the characters, or more where the wanted held-out text needs it
HELDOUT_LARGEST_FRACTION = 0.2
ROW_GROUP_CHARACTERS = 1 << 24
REMEMBERED_WORDS = 1 << 20
SCHEMA = pa.schema({"text": pa.string(), "split": pa.string()})

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
    shard: int = 0,
) -> None:
    """Write a shard of a corpus as parquet (columns ``text``, ``split``) and the counts of each step as JSON.

    The parquet's metadata name the ``commit`` of a Hugging Face data set that was read.

    A document's place is decided by a hash of its text and ``seed``: documents are in order of hash, those of lowest
    hash are held out (see :func:`_held_out`), and the rest are kept up to the shard's part of ``character_limit``. A
    Hugging Face data set, and any corpus of several shards, is read only until the limit is reached.

    Texts wait for their order in a temporary file beside the output; in memory are some 100 bytes a document, and a row
    group. Duplicates are found within a shard alone.

    Args:
        archive: the fetched package, for a package source.
        contamination: index of :func:`contamination_index`; None keeps every document.
        heldout_characters: held-out text that is wanted of the whole corpus.

    Raises:
        ConfigError: the source's options, files or columns, no access to it, no document is left.
    """
    started = time.time()
    where, label = f"data.corpora.{name}.source", name
    if corpus.shards > 1:
        label = f"{name}, shard {shard} of {corpus.shards}"
    limit = len(share(corpus.character_limit, shard, corpus.shards)) if corpus.character_limit else None
    stop = limit if isinstance(corpus.source, HubSource) or corpus.shards > 1 else None
    commit = hub.commit(corpus.source, where) if isinstance(corpus.source, HubSource) else None
    prose = sources.is_prose(corpus)
    leaked = np.load(contamination) if contamination else None
    count = {"read": 0, "too_short": 0, "duplicates_removed": 0, "contaminated_removed": 0}
    without: Counter[str] = Counter()  # column -> rows that are no document, having nothing there
    seen: set[int] = set()
    keys, lengths, ends = array("Q"), array("q"), array("q", [0])  # lengths in characters, ends in bytes of the file
    characters = 0
    output_parquet.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output_parquet.parent) as texts:
        for document in sources.read(name, corpus, archive, shard, commit, without):
            count["read"] += 1
            text = clean(document, prose)
            if len(text) < MINIMUM_CHARACTERS:
                count["too_short"] += 1
                continue
            key = identity(text, seed)
            if key in seen:
                count["duplicates_removed"] += 1
                continue
            if leaked is not None and is_contaminated(text, leaked, ngram):
                count["contaminated_removed"] += 1
                continue
            seen.add(key)
            keys.append(key)
            lengths.append(len(text))
            ends.append(ends[-1] + texts.write(text.encode()))
            characters += len(text)
            if stop is not None and characters >= stop:
                break
            if count["read"] % 20000 == 0:
                speed = count["read"] / (time.time() - started)
                print(f"{label}: {count['read']} documents read, {speed:.0f}/s", flush=True)

        if not keys:
            raise ConfigError(
                f"corpus {label}: no document left of {count['read']} read ({count}, rows without: {dict(without)})"
            )
        hashes = np.frombuffer(keys, np.uint64)
        order = np.argsort(hashes)
        cumulative = np.cumsum(np.frombuffer(lengths, np.int64)[order])
        if limit is not None:
            order = order[: _reach(cumulative, limit)]
        cumulative = cumulative[: len(order)]
        heldout = _held_out(hashes[order], cumulative, corpus, heldout_characters)
        schema = SCHEMA.with_metadata({"commit": commit} if commit else None)
        _write(texts, np.frombuffer(ends, np.int64), order, cumulative, heldout, schema, output_parquet)

    total, heldout_total = int(cumulative[-1]), int(cumulative[heldout - 1]) if heldout else 0
    counts: dict[str, Any] = {
        "corpus": name,
        "stands_for": corpus.stands_for,
        "stand_in": corpus.stand_in,
        "kind": corpus.kind,
        "shard": shard,
        "commit": commit,
        **count,
        "rows_without": without,
        "after_cleaning": count["read"] - count["too_short"],
        "over_character_limit": len(keys) - len(order),
        "documents": {"train": len(order) - heldout, "heldout": heldout},
        "characters": {"train": total - heldout_total, "heldout": heldout_total},
        "contamination_ngrams": None if leaked is None else len(leaked),
    }
    specification = {"corpus": corpus.model_dump(), "ngram": ngram, "seed": seed, "heldout": heldout_characters}
    write_json(output_json, {**counts, "provenance": provenance.record(specification, started)})
    seconds = time.time() - started
    print(f"{label}: {len(order)} documents, {total / 1e6:.2f} M characters, {seconds:.1f} s; {count}", flush=True)
    for column, rows in without.items():
        print(f"{label}: {rows} rows left out, whose column {column} is empty", flush=True)


def _held_out(hashes: np.ndarray, cumulative: np.ndarray, corpus: Corpus, wanted: int) -> int:
    """How many of the documents, in order of hash, are held out.

    A corpus of one shard holds out those of lowest hash until they have the wanted characters (at least 4 %, at most
    20 % of the corpus). The shards of a larger one cannot know of each other, and a text that two of them have must
    not be held out in one and trained on in the other: there the hashes below a fixed share of all are held out.
    """
    if corpus.shards == 1:
        total = cumulative[-1]
        return _reach(cumulative, min(max(HELDOUT_FRACTION * total, wanted), HELDOUT_LARGEST_FRACTION * total))
    needed = wanted / corpus.character_limit if corpus.character_limit else 0.0
    fraction = min(max(HELDOUT_FRACTION, needed), HELDOUT_LARGEST_FRACTION)
    return int(np.searchsorted(hashes, np.uint64(fraction * 2**64)))


def _reach(cumulative: np.ndarray, characters: float) -> int:
    """How many of the first texts reach ``characters`` (at least one)."""
    return min(int(np.searchsorted(cumulative, characters)) + 1, len(cumulative))


def _write(
    texts: IO[bytes],
    ends: np.ndarray,
    order: np.ndarray,
    cumulative: np.ndarray,
    heldout: int,
    schema: pa.Schema,
    output: Path,
) -> None:
    """Write the texts in this order, a row group at a time; ``output`` exists only when it is whole."""
    texts.flush()
    boundaries = np.flatnonzero(np.diff(cumulative // ROW_GROUP_CHARACTERS)) + 1
    temporary = output.with_name(output.name + ".partial")
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        written = 0
        for group in np.split(order, boundaries):
            columns = {
                "text": [os.pread(texts.fileno(), ends[i + 1] - ends[i], ends[i]).decode() for i in group.tolist()],
                "split": ["heldout" if row < heldout else "train" for row in range(written, written + len(group))],
            }
            writer.write_table(pa.table(columns, schema))
            written += len(group)
    os.replace(temporary, output)


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
        with open(file, encoding="utf-8") as lines:
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
    """Hashes of words, each computed once as long as there is room; code and numbers never run out of new words."""

    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
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
