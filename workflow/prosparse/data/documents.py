"""A corpus's documents: its candidates without benchmark rows and held-out text."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prosparse.data.candidates import MINIMUM_CHARACTERS, ROW_GROUP_CHARACTERS, SCHEMA
from prosparse.data.contamination import Contamination
from prosparse.data.ngrams import Grams, Index, distinct, spans, word_hashes
from prosparse.system import provenance
from prosparse.system.files import write_json

BATCH = 500  # documents checked at once
LEAST_LEFT = 0.5  # fraction of its characters that a shortened document must keep, or it is removed


def build(candidates: Path, contamination: Path, output_parquet: Path, output_json: Path) -> None:
    """Write a shard's documents (columns ``text``, ``split``), and the counts of each step as JSON.

    A training document that shares an n-gram with a benchmark row is removed. One that shares a distinctive n-gram with
    a held-out document of any corpus (see :meth:`~prosparse.data.contamination.Contamination.distinctive`) loses the
    lines that contain it, or is removed if less than half of it would be left. Held-out documents are never changed.

    Args:
        candidates: parquet file written by :func:`prosparse.data.candidates.build`, with its counts in a JSON file of
            the same name.
        contamination: index written by :func:`prosparse.data.contamination.build`.
    """
    started = time.time()
    counts = json.loads(candidates.with_suffix(".json").read_text(encoding="utf-8"))
    index = Contamination.load(contamination)
    leaked, suspected, documents_with, heldout = _survey(candidates, index)
    distinctive, coverage = index.distinctive(heldout, documents_with)
    kept: dict[str, Counter[str]] = {"documents": Counter(), "characters": Counter()}
    removed = {"benchmark_removed": 0, "heldout_removed": 0, "heldout_shortened": 0, "heldout_characters_cut": 0}

    def checked() -> Iterator[tuple[str, str]]:
        for place, (text, split) in enumerate(_read(candidates)):
            if place in leaked:
                removed["benchmark_removed"] += 1
                continue
            rest = without(text, distinctive) if place in suspected else text
            if rest is None:
                removed["heldout_removed"] += 1
                continue
            if rest != text:
                removed["heldout_shortened"] += 1
                removed["heldout_characters_cut"] += len(text) - len(rest)
            kept["documents"][split] += 1
            kept["characters"][split] += len(rest)
            yield rest, split

    _write(checked(), pq.read_schema(candidates).metadata, output_parquet)
    benchmarks = json.loads(contamination.with_suffix(".json").read_text(encoding="utf-8"))["benchmarks"]
    counts |= {
        **removed,
        **{key: {split: kept[key][split] for split in ("train", "heldout")} for key in kept},
        "ngram": int(index.ngram),
        "benchmark_coverage": benchmarks,
        "heldout_coverage": coverage,
    }
    specification = {"candidates": counts["provenance"], "ngram": int(index.ngram)}
    write_json(output_json, {**counts, "provenance": provenance.record(specification, started)})
    print(
        f"{counts['corpus']}: {sum(kept['documents'].values())} documents, "
        f"{sum(kept['characters'].values()) / 1e6:.2f} M characters, {time.time() - started:.1f} s; {removed}"
    )
    for corpus, share in coverage.items():
        print(f"  held-out text of {corpus}: {100 * share:.1f}% of the documents have an n-gram of their own")


def _read(candidates: Path) -> Iterator[tuple[str, str]]:
    for batch in pq.ParquetFile(candidates).iter_batches(batch_size=BATCH, columns=["text", "split"]):
        yield from zip(batch["text"].to_pylist(), batch["split"].to_pylist(), strict=True)


def _survey(candidates: Path, index: Contamination) -> tuple[set[int], set[int], np.ndarray, Index]:
    """Find the training documents that share an n-gram with a benchmark, and with a held-out document.

    Returns:
        The positions of the first; those of the second, without the first; for each gram of the held-out index, the
        number of training documents that contain it; and that index.
    """
    benchmark, heldout = index.benchmark_index(), index.heldout_index()
    documents_with = np.zeros(len(heldout.hashes), np.int64)
    leaked: set[int] = set()
    suspected: set[int] = set()
    first = 0
    for batch in pq.ParquetFile(candidates).iter_batches(batch_size=BATCH, columns=["text", "split"]):
        trained = np.array([split == "train" for split in batch["split"].to_pylist()])
        places = first + np.flatnonzero(trained)
        texts = [word_hashes(text) for text, wanted in zip(batch["text"].to_pylist(), trained, strict=True) if wanted]
        leaked.update(places[np.unique(benchmark.find(texts)[0].text)].tolist())
        found, entries = heldout.find(texts)
        suspected.update(places[np.unique(found.text)].tolist())
        pairs = distinct(found.text * max(len(documents_with), 1) + entries)  # each gram once per document
        documents_with += np.bincount(pairs % max(len(documents_with), 1), minlength=len(documents_with))
        first += len(trained)
    return leaked, suspected - leaked, documents_with, heldout


def without(text: str, index: Index) -> str | None:
    """Remove the lines that contain a gram of the index; return None if too little is left."""
    rest = text
    while len((found := index.find([word_hashes(rest)])[0]).hash):
        rest = _cut(rest, found)
        if len(rest) < max(MINIMUM_CHARACTERS, LEAST_LEFT * len(text)):
            return None
    return rest


def _cut(text: str, found: Grams) -> str:
    places = spans(text)
    cut = {
        line
        for start, length in zip(found.start.tolist(), found.length.tolist(), strict=True)
        for line in range(text.count("\n", 0, places[start][0]), text.count("\n", 0, places[start + length - 1][1]) + 1)
    }
    return "\n".join(line for number, line in enumerate(text.split("\n")) if number not in cut).strip("\n")


def _write(documents: Iterator[tuple[str, str]], metadata: dict[bytes, bytes] | None, output: Path) -> None:
    """Write the documents as they arrive; ``output`` appears only once it is complete."""
    output.parent.mkdir(parents=True, exist_ok=True)
    schema: Any = SCHEMA.with_metadata(metadata)
    temporary = output.with_name(output.name + ".partial")
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        rows: list[tuple[str, str]] = []
        characters = 0
        for row in documents:
            rows.append(row)
            characters += len(row[0])
            if characters >= ROW_GROUP_CHARACTERS:
                _write_group(writer, rows, schema)
                rows, characters = [], 0
        if rows:
            _write_group(writer, rows, schema)
    os.replace(temporary, output)


def _write_group(writer: pq.ParquetWriter, rows: list[tuple[str, str]], schema: pa.Schema) -> None:
    texts, splits = zip(*rows, strict=True)
    writer.write_table(pa.table({"text": texts, "split": splits}, schema))
