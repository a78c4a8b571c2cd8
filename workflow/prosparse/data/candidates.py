"""Clean, deduplicate and split a corpus into train and held-out candidate documents."""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prosparse.data import hub, sources
from prosparse.data.hashing import stable_hash
from prosparse.data.ngrams import words
from prosparse.data.shards import share
from prosparse.experiment.data import Corpus, HubSource
from prosparse.experiment.specifications import CandidatesSpecification
from prosparse.system import provenance
from prosparse.system.errors import ConfigError
from prosparse.system.files import write_json

MINIMUM_CHARACTERS = 20
HELDOUT_FRACTION = 0.04  # of the characters, or more if the requested held-out text needs it
HELDOUT_LARGEST_FRACTION = 0.2
HELDOUT_LARGEST_MULTIPLE = (
    16  # of the requested held-out text: more would only lengthen what training text is checked against
)
ROW_GROUP_CHARACTERS = 1 << 24
SCHEMA = pa.schema({"text": pa.string(), "split": pa.string()})

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2060\ufeff]")


def build(
    name: str,
    wanted: CandidatesSpecification,
    archive: Path | None,
    output: Path,
    shard: int = 0,
    seed: int = 0,
) -> None:
    """Write a shard of a corpus as parquet (columns ``text``, ``split``) and the counts of each step as JSON.

    The parquet metadata record the ``commit`` of a Hugging Face data set.

    Documents are sorted by a hash of their words and ``seed``. Those with the lowest hashes are held out (see
    :func:`_held_out`), and the rest are kept up to the shard's part of ``character_limit``. The hash ignores the
    corpus, case, punctuation and white space, so that a text in two corpora or shards tends to fall on the same side
    of both splits; :mod:`prosparse.data.documents` finds the exceptions. A Hugging Face data set, like any corpus of
    several shards, is read only until the limit is reached.

    Texts wait to be sorted in a temporary file next to the output; memory holds about 100 bytes per document, plus one
    row group. Duplicates are found only within a shard.

    Args:
        archive: the fetched package, for a package source.
        output: the parquet file.

    Raises:
        ConfigError: the source's options, files or columns are wrong, it is not accessible, or no document is left.
    """
    started, corpus = time.time(), wanted.corpus
    where, label = f"data.corpora.{name}.source", name
    if corpus.shards > 1:
        label = f"{name}, shard {shard} of {corpus.shards}"
    limit = len(share(corpus.character_limit, shard, corpus.shards)) if corpus.character_limit else None
    stop = limit if isinstance(corpus.source, HubSource) or corpus.shards > 1 else None
    commit = hub.commit(corpus.source, where) if isinstance(corpus.source, HubSource) else None
    prose = sources.is_prose(corpus)
    count = {"read": 0, "too_short": 0, "duplicates_removed": 0}
    without: Counter[str] = Counter()  # column -> rows skipped because it is empty
    seen: set[int] = set()
    places, identities = array("Q"), array("Q")
    lengths, ends = array("q"), array("q", [0])  # lengths in characters, ends in bytes of the file
    characters = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output.parent) as texts:
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
            seen.add(key)
            places.append(split_hash(text, seed))
            identities.append(key)
            lengths.append(len(text))
            ends.append(ends[-1] + texts.write(text.encode()))
            characters += len(text)
            if stop is not None and characters >= stop:
                break
            if count["read"] % 20000 == 0:
                speed = count["read"] / (time.time() - started)
                print(f"{label}: {count['read']} documents read, {speed:.0f}/s", flush=True)

        if not places:
            raise ConfigError(
                f"corpus {label}: no document left of {count['read']} read ({count}, rows without: {dict(without)})"
            )
        hashes = np.frombuffer(places, np.uint64)
        order = np.lexsort((np.frombuffer(identities, np.uint64), hashes))
        cumulative = np.cumsum(np.frombuffer(lengths, np.int64)[order])
        if limit is not None:
            order = order[: _reach(cumulative, limit)]
        cumulative = cumulative[: len(order)]
        over_limit = len(places) - len(order)
        heldout, reserved = _held_out(hashes[order], cumulative, corpus, wanted.heldout_characters)
        order = np.delete(order, slice(heldout, reserved))
        cumulative = np.cumsum(np.frombuffer(lengths, np.int64)[order])
        schema = SCHEMA.with_metadata({"commit": commit} if commit else None)
        groups = np.split(order, np.flatnonzero(np.diff(cumulative // ROW_GROUP_CHARACTERS)) + 1)
        texts.flush()
        _write((_texts(texts, ends, group) for group in groups), heldout, schema, output)

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
        "over_character_limit": over_limit,
        "reserved": reserved - heldout,  # neither trained on nor held out
        "documents": {"train": len(order) - heldout, "heldout": heldout},
        "characters": {"train": total - heldout_total, "heldout": heldout_total},
    }
    specification = {"corpus": corpus.model_dump(), "seed": seed, "heldout": wanted.heldout_characters}
    write_json(output.with_suffix(".json"), {**counts, "provenance": provenance.record(specification, started)})
    seconds = time.time() - started
    print(f"{label}: {len(order)} documents, {total / 1e6:.2f} M characters, {seconds:.1f} s; {count}", flush=True)
    for column, rows in without.items():
        print(f"{label}: {rows} rows skipped, because their column {column} is empty", flush=True)


def _held_out(hashes: np.ndarray, cumulative: np.ndarray, corpus: Corpus, wanted: int) -> tuple[int, int]:
    """Return how many documents, in order of hash, are held out, and how many are not trained on.

    A corpus of one shard holds out documents from the lowest hash up until they have the ``wanted`` characters (at
    least 4% and at most 20% of the corpus, and at most 16 times ``wanted``). The shards of a larger corpus do not
    know each other, yet a text in two of them must not be held out in one and trained on in the other. There, no
    document whose hash lies below a fixed fraction of the range is trained on, and the first of these are held out.
    """
    most = HELDOUT_LARGEST_MULTIPLE * wanted or math.inf
    if corpus.shards == 1:
        total = cumulative[-1]
        enough = min(max(HELDOUT_FRACTION * total, wanted), HELDOUT_LARGEST_FRACTION * total, most)
        return (heldout := _reach(cumulative, enough)), heldout
    needed = wanted / corpus.character_limit if corpus.character_limit else 0.0
    fraction = min(max(HELDOUT_FRACTION, needed), HELDOUT_LARGEST_FRACTION)
    reserved = int(np.searchsorted(hashes, np.uint64(fraction * 2**64)))
    return min(_reach(cumulative, most / corpus.shards), reserved), reserved


def _reach(cumulative: np.ndarray, characters: float) -> int:
    """Return how many leading texts it takes to reach ``characters`` (at least one)."""
    return min(int(np.searchsorted(cumulative, characters)) + 1, len(cumulative))


def _texts(file: IO[bytes], ends: Sequence[int], documents: np.ndarray) -> list[str]:
    """Read these documents from the file; document ``i`` lies between ``ends[i]`` and ``ends[i + 1]``."""
    return [os.pread(file.fileno(), ends[i + 1] - ends[i], ends[i]).decode() for i in documents.tolist()]


def _write(groups: Iterable[list[str]], heldout: int, schema: pa.Schema, output: Path) -> None:
    """Write groups of texts, of which the first ``heldout`` are held out; ``output`` appears once it is complete."""
    temporary = output.with_name(output.name + ".partial")
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        written = 0
        for texts in groups:
            split = ["heldout" if row < heldout else "train" for row in range(written, written + len(texts))]
            writer.write_table(pa.table({"text": texts, "split": split}, schema))
            written += len(texts)
    os.replace(temporary, output)


def clean(text: str, prose: bool) -> str:
    """Normalize to NFC and ``\\n``; remove control characters, trailing spaces and blank lines beyond two.

    In ``prose``, runs of spaces collapse into one and at most one blank line stays; code keeps its indentation.
    """
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[ \t]+\n", "\n", _CONTROL.sub("", text))
    if prose:
        text = re.sub(r"[ \t\u00a0]+", " ", text)
        return re.sub(r"\n{3,}", "\n\n", text).strip()
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n").rstrip()


def identity(text: str, seed: int) -> int:
    """Hash the text to 64 bits, ignoring case and white space; duplicates have equal hashes."""
    return stable_hash(" ".join(text.casefold().split()), str(seed))


def split_hash(text: str, seed: int) -> int:
    """Hash the text's words to 64 bits: texts that differ only in case, punctuation and white space split alike."""
    return stable_hash(" ".join(words(text)) or text, str(seed))
