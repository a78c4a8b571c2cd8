"""Index what training text must not contain: benchmark rows and held-out documents."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from prosparse.data.ngrams import FEWEST_WORDS, Grams, Index, distinct, grams, word_hashes
from prosparse.system.errors import ConfigError
from prosparse.system.files import write_json

SPREAD = 10  # documents of a shard that may share a run of words before it counts as boilerplate, not a copy
_BLANK = re.compile(r"(?<!\w)_+(?!\w)")
_FEWEST_WORDS_OF_QUESTION = 3  # shorter strings of a row are labels and identifiers


@dataclass(frozen=True)
class Contamination:
    """The n-grams of benchmark rows, and those of held-out documents in order.

    A text shorter than an n-gram counts as one gram. The three arrays of held-out grams are parallel.
    """

    benchmark: np.ndarray  # distinct hashes, uint64
    benchmark_lengths: np.ndarray  # distinct lengths, in words
    heldout: np.ndarray  # hash, uint64
    heldout_length: np.ndarray
    heldout_document: np.ndarray  # document number, across all corpora
    corpus: np.ndarray  # corpus number of each held-out document
    corpora: np.ndarray  # names
    ngram: np.ndarray  # scalar

    @classmethod
    def load(cls, path: Path) -> Contamination:
        with np.load(path) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})

    def save(self, path: Path) -> None:
        temporary = path.with_name(path.name + ".partial.npz")
        np.savez(temporary, **{field.name: getattr(self, field.name) for field in fields(self)})
        os.replace(temporary, path)

    def benchmark_index(self) -> Index:
        return Index(self.benchmark, self.benchmark_lengths)

    def heldout_index(self) -> Index:
        return Index(self.heldout, self.heldout_length)

    def distinctive(self, index: Index, documents_with: np.ndarray) -> tuple[Index, dict[str, float]]:
        """Index the held-out grams that share no word with boilerplate.

        A gram that more than ``SPREAD`` training documents contain is boilerplate: a task's definition, a license. So
        may be any gram that overlaps it in a held-out document: the definition and the first words of an input.

        Args:
            index: :meth:`heldout_index`.
            documents_with: number of training documents that contain each gram of ``index``.

        Returns:
            The index, and for each corpus the fraction of its held-out documents that have such a gram.
        """
        common = documents_with[np.searchsorted(index.hashes, self.heldout)] > SPREAD
        covered = common.copy()
        for distance in range(1, int(self.ngram)):
            near = self.heldout_document[distance:] == self.heldout_document[:-distance]
            covered[distance:] |= near & common[:-distance]
            covered[:-distance] |= near & common[distance:]
        hashes, lengths = self.heldout[~covered], self.heldout_length[~covered]
        matchable = self.heldout_document[~covered & (self.heldout_length >= FEWEST_WORDS)]
        return Index(hashes, lengths), self._shares(matchable)

    def heldout_coverage(self) -> dict[str, float]:
        """Return, per corpus, the fraction of held-out documents long enough to be recognized inside another text."""
        return self._shares(self.heldout_document[self.heldout_length >= FEWEST_WORDS])

    def _shares(self, matchable: np.ndarray) -> dict[str, float]:
        documents = np.bincount(self.corpus, minlength=len(self.corpora))
        found = np.bincount(self.corpus[np.unique(matchable)], minlength=len(self.corpora))
        return dict(zip(self.corpora.tolist(), (found / np.maximum(documents, 1)).tolist(), strict=True))


def build(rows: Path, candidates: Mapping[str, Sequence[Path]], ngram: int, output: Path) -> None:
    """Index the rows of ``rows/*.jsonl`` and the held-out documents of every corpus.

    Writes ``output`` (.npz, a :class:`Contamination`) and a JSON file of the same name with the numbers of benchmark
    rows and held-out documents, and the fractions of them that can be recognized inside a text.

    Args:
        candidates: for each corpus, the files written by :func:`prosparse.data.candidates.build`.
        ngram: number of consecutive words that a training text must not share with any of them.

    Raises:
        ConfigError: there are no benchmark rows.
    """
    started = time.time()
    files = sorted(rows.glob("*.jsonl"))
    if not files:
        raise ConfigError(f"no benchmark rows in {rows}: there is nothing to decontaminate against")
    benchmark, coverage = [], {}
    for file in files:
        with open(file, encoding="utf-8") as lines:
            found, share, count = _rows_grams((json.loads(line) for line in lines), ngram)
        benchmark.append(found)
        coverage[file.name.removesuffix(".jsonl")] = {"rows": count, "matchable": share}
    texts, corpus = [], []
    for number, paths in enumerate(candidates.values()):
        for path in paths:
            for text in held_out(path):
                texts.append(word_hashes(text))
                corpus.append(number)
    heldout = grams(texts, ngram)
    index = Contamination(
        benchmark=distinct(np.concatenate([each.hash for each in benchmark])),
        benchmark_lengths=distinct(np.concatenate([each.length for each in benchmark])),
        heldout=heldout.hash,
        heldout_length=heldout.length.astype(np.uint8),
        heldout_document=heldout.text.astype(np.uint32),
        corpus=np.array(corpus, np.uint16),
        corpora=np.array(list(candidates)),
        ngram=np.array(ngram),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    index.save(output)
    shares = index.heldout_coverage()
    counts = np.bincount(index.corpus, minlength=len(index.corpora)).tolist()
    held = {
        name: {"documents": count, "matchable": shares[name]} for name, count in zip(candidates, counts, strict=True)
    }
    write_json(output.with_suffix(".json"), {"ngram": ngram, "benchmarks": coverage, "heldout": held})
    for name, row in coverage.items():
        print(f"benchmark {name}: {row['rows']} rows, {100 * row['matchable']:.1f}% can be recognized")
    for name, row in held.items():
        print(f"held-out text of {name}: {row['documents']} documents, {100 * row['matchable']:.1f}% can be recognized")
    print(f"{len(index.benchmark)} + {len(index.heldout)} {ngram}-grams, {time.time() - started:.1f} s", flush=True)


def held_out(candidates: Path) -> Iterator[str]:
    """Yield the held-out documents of a shard, which come first."""
    for batch in pq.ParquetFile(candidates).iter_batches(batch_size=1000, columns=["text", "split"]):
        for text, split in zip(batch["text"].to_pylist(), batch["split"].to_pylist(), strict=True):
            if split != "heldout":
                return
            yield text


# -------------------------------------------------------------------------------- benchmark rows


def _rows_grams(rows: Iterator[Mapping[str, Any]], ngram: int) -> tuple[Grams, float, int]:
    """Return a benchmark's grams, the fraction of rows recognizable inside a text, and the number of rows."""
    texts, row_of, count = [], [], 0
    for row in rows:
        for text in row_texts(row, ngram):
            texts.append(text)
            row_of.append(count)
        count += 1
    found = grams(texts, ngram)
    matchable = np.unique(np.array(row_of, np.int64)[found.text[found.length >= FEWEST_WORDS]])
    return found, len(matchable) / max(count, 1), count


def row_texts(row: Mapping[str, Any], ngram: int) -> Iterator[np.ndarray]:
    """Yield the passages (as word hashes) that identify a row in a text.

    These are its strings that are long enough and, since a text may join a question and its answer, the end of each
    field followed by the beginning of each later string. A blank (``_``) is filled with each of the row's short
    strings.
    """
    strings = [(text, depth) for text, depth in _strings(row) if text.strip()]
    short = [text for text, _ in strings if len(text.split()) <= 5]
    filled = []
    for text, depth in strings:
        if "_" in text and _BLANK.search(text):
            filled += [(option.join(_BLANK.split(text)), depth) for option in short]
        else:
            filled.append((text, depth))
    hashed = [(word_hashes(text), depth) for text, depth in filled]
    alone = len(strings) == 1
    for place, (words, depth) in enumerate(hashed):
        if alone or len(words) >= FEWEST_WORDS:
            yield words
        if depth == 0 and len(words) >= _FEWEST_WORDS_OF_QUESTION:
            for answer, _ in hashed[place + 1 :]:
                if len(answer):
                    yield np.concatenate([words[-(ngram - 1) :], answer[: ngram - 1]])


def _strings(value: Any, depth: int = -1) -> Iterator[tuple[str, int]]:
    """Yield every string of a row with its depth: 0 for a field of the row itself."""
    if isinstance(value, str):
        yield value, depth
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, depth + 1)
