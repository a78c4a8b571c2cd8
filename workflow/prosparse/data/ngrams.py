"""Hash runs of words to 64 bits, and find those that texts share with an index."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prosparse.data.hashing import stable_hash

REMEMBERED_WORDS = 1 << 20
FEWEST_WORDS = 8  # that identify a passage; a shorter run matches only a whole document
_WORD = re.compile(r"[^\W_]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """Split a text into lower-cased alphanumeric words, which ignore case, white space and punctuation."""
    return [word.lower() for word in _WORD.findall(text)]


def spans(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) character offsets of each of :func:`words`, end excluded."""
    return [match.span() for match in _WORD.finditer(text)]


def word_hashes(text: str) -> np.ndarray:
    """Hash each of :func:`words` to uint64."""
    return np.array([_remembered[word] for word in _WORD.findall(text)], np.uint64)


class _Remembered(dict[str, int]):
    """Cache of word hashes, cleared when full: code and numbers never run out of new words."""

    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
        value = self[word] = stable_hash(word.lower())
        return value


_remembered = _Remembered()


@dataclass(frozen=True)
class Grams:
    """Runs of consecutive words: the text each is from, its first word there, its length in words, and its hash."""

    text: np.ndarray
    start: np.ndarray
    length: np.ndarray
    hash: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> Grams:
        return Grams(self.text[chosen], self.start[chosen], self.length[chosen], self.hash[chosen])


def grams(texts: Sequence[np.ndarray], ngram: int) -> Grams:
    """Return every run of ``ngram`` words of each text (as :func:`word_hashes`), or the whole text if it is shorter."""
    joined = _Joined(texts)
    wanted = np.minimum(joined.counts, ngram)[joined.text]
    parts = [
        joined.grams(np.flatnonzero(wanted[: len(hashes)] == length), length, hashes)
        for length, hashes in joined.windows(range(1, ngram + 1))
    ]
    found = _concatenated(parts)
    return found[np.lexsort((found.start, found.text))]


class _Joined:
    """Concatenated texts, so that their windows are computed at once."""

    def __init__(self, texts: Sequence[np.ndarray]) -> None:
        self.counts = np.array([len(text) for text in texts], np.int64)
        self.values = np.concatenate([np.empty(0, np.uint64), *texts])
        self.text = np.repeat(np.arange(len(texts)), self.counts)
        self.start = np.arange(len(self.values)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)

    def windows(self, lengths: Collection[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (length, hashes of all windows of that many words): polynomials in the word hashes modulo 2^64."""
        hashes = self.values
        for length in range(1, max(lengths, default=0) + 1):
            if length > len(self.values):
                return
            if length > 1:
                hashes = hashes[:-1] * _FACTOR + self.values[length - 1 :]
            if length in lengths:
                yield length, hashes

    def grams(self, windows: np.ndarray, length: int, hashes: np.ndarray) -> Grams:
        """Return those of the windows (given by position) that lie within one text."""
        inside = windows[self.text[windows] == self.text[windows + length - 1]]
        return Grams(self.text[inside], self.start[inside], np.full(len(inside), length), hashes[inside])


def _concatenated(parts: Sequence[Grams]) -> Grams:
    empty = np.empty(0, np.int64)
    return Grams(
        np.concatenate([empty, *(part.text for part in parts)]),
        np.concatenate([empty, *(part.start for part in parts)]),
        np.concatenate([empty, *(part.length for part in parts)]),
        np.concatenate([empty.astype(np.uint64), *(part.hash for part in parts)]),
    )


def distinct(values: np.ndarray) -> np.ndarray:
    """Sort the values and drop duplicates, ten times as fast as ``np.unique`` for millions of hashes."""
    if (values[1:] > values[:-1]).all():
        return values
    values = np.sort(values)
    return values[np.concatenate([[True], values[1:] != values[:-1]])]


class Index:
    """Runs of words to search for.

    Args:
        hashes: hashes of the runs, from :func:`grams`.
        lengths: lengths of the runs in words. A run shorter than ``FEWEST_WORDS`` matches only a whole text.
    """

    def __init__(self, hashes: np.ndarray, lengths: np.ndarray) -> None:
        self.hashes, self.lengths = distinct(hashes), np.flatnonzero(np.bincount(lengths)).tolist()
        bits = max(16, len(self.hashes).bit_length() + 4)
        self._shift = np.uint64(64 - bits)
        self._seen = np.zeros(1 << bits, bool)  # by a hash's leading bits: rules out most windows before the search
        self._seen[self.hashes >> self._shift] = True

    def find(self, texts: Sequence[np.ndarray]) -> tuple[Grams, np.ndarray]:
        """Find the index's runs in these texts (as :func:`word_hashes`), and the position of each in ``hashes``."""
        joined = _Joined(texts)
        parts = []
        for length, hashes in joined.windows(self.lengths):
            if length < FEWEST_WORDS:
                whole = (joined.start == 0) & (joined.counts[joined.text] == length)
                windows = np.flatnonzero(whole[: len(hashes)])
            else:
                windows = np.flatnonzero(self._seen[hashes >> self._shift])
            parts.append(joined.grams(windows, length, hashes))
        found = _concatenated(parts)
        if not len(self.hashes):
            return found, found.text
        places = np.minimum(np.searchsorted(self.hashes, found.hash), len(self.hashes) - 1)
        exact = self.hashes[places] == found.hash
        return found[exact], places[exact]
