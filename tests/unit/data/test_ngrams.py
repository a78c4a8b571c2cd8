"""Runs of words, against sets of tuples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosparse.data import ngrams
from prosparse.data.ngrams import FEWEST_WORDS, Index, grams, spans, word_hashes, words

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=14).map(" ".join), max_size=6)


def runs(text, length):
    found = text.split()
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}


def reference(text, ngram):
    """The grams of a text: its n-grams, or itself."""
    return runs(text, min(ngram, len(text.split()))) if text else set()


@given(TEXTS, TEXTS)
def test_found_runs_are_those_of_brute_force(indexed, searched):
    known = grams([word_hashes(text) for text in indexed], 10)
    wanted = set().union(*(reference(text, 10) for text in indexed))
    assert len(np.unique(known.hash)) == len(wanted)
    index = Index(known.hash, known.length)
    found, places = index.find([word_hashes(text.upper().replace(" ", ", ")) for text in searched])
    assert (index.hashes[places] == found.hash).all()
    expected = {
        (number, start, length)
        for number, text in enumerate(searched)
        for length in {len(run) for run in wanted}
        for start in range(len(text.split()) - length + 1)
        if tuple(text.split()[start : start + length]) in wanted
        and (length >= FEWEST_WORDS or length == len(text.split()))
    }
    assert set(zip(found.text.tolist(), found.start.tolist(), found.length.tolist(), strict=True)) == expected


@given(st.text())
def test_spans_are_where_the_words_are(text):
    assert [text[start:end].lower() for start, end in spans(text)] == words(text)
    assert len(word_hashes(text)) == len(words(text))


def test_words_of_other_alphabets_and_cases():
    assert words("Γειά_σου İstanbul, x2 — 3.5!") == ["γειά", "σου", "i̇stanbul", "x2", "3", "5"]


def test_forgotten_words_have_the_same_hashes(monkeypatch):
    lines = [" ".join(f"word{number * step % 50}" for number in range(40)) for step in range(1, 20)]
    remembered = [word_hashes(line) for line in lines]
    monkeypatch.setattr(ngrams, "REMEMBERED_WORDS", 7)
    monkeypatch.setattr(ngrams, "_remembered", ngrams._Remembered())
    assert all((word_hashes(line) == known).all() for line, known in zip(lines, remembered, strict=True))
    assert len(ngrams._remembered) <= 7


@pytest.mark.parametrize("texts", [[], [""], ["a b c"]])
def test_an_empty_index_finds_nothing(texts):
    found, places = Index(np.empty(0, np.uint64), np.empty(0, np.int64)).find([word_hashes(text) for text in texts])
    assert len(found.hash) == len(places) == 0
