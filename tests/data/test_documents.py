"""Cleaning, deduplication, decontamination and the split, against brute force and planted cases."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosparse.config import Corpus
from prosparse.data import documents
from prosparse.data.documents import build, clean, contamination_index, identity, is_contaminated, ngram_hashes

WORDS = np.array([f"word{i}" for i in range(300)])


def texts(count, seed=0, words=40):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, words)) for _ in range(count)]


def run(tmp_path, lines, index=None, seed=0, heldout_characters=0, limit=None):
    """Build a corpus of these documents; returns ({split: texts}, counts)."""
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    source = {"files": [str(tmp_path / "rows.jsonl")]}
    corpus = Corpus(stands_for="pile", kind="language_modelling", source=source, character_limit=limit)
    out = tmp_path / "out.parquet", tmp_path / "out.json"
    build("c", corpus, None, index, 13, heldout_characters, seed, *out)
    rows = pq.read_table(out[0]).to_pylist()
    split = {name: [row["text"] for row in rows if row["split"] == name] for name in ("train", "heldout")}
    return split, json.loads(out[1].read_text())


@pytest.fixture
def index(tmp_path):
    """The index of one benchmark with strings at several depths."""
    rows = [
        {"ctx": " ".join(f"leak{i}" for i in range(20)), "label": 3},
        {"choices": {"text": [" ".join(f"deep{i}" for i in range(13)), "yes"]}},
        {"a": " ".join(f"half{i}" for i in range(7)), "b": " ".join(f"half{i}" for i in range(7, 14))},
    ]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "bench.jsonl").write_text("\n".join(map(json.dumps, rows)))
    contamination_index(tmp_path / "rows", 13, tmp_path / "index.npy")
    return tmp_path / "index.npy"


# --------------------------------------------------------------------------------- cleaning


def test_clean_keeps_code_and_normalises_prose():
    code = "def f():\r\n    return  1   \r\n\n\n\n\n\ng()\x00\n"
    assert clean(code, prose=False) == "def f():\n    return  1\n\n\ng()"
    assert clean("  A  b\t c\u00a0d \n\n\n\ne", prose=True) == "A b c d\n\ne"
    assert clean("e\u0301", prose=True) == "é"


@given(st.text(), st.booleans())
def test_clean_is_idempotent(text, prose):
    once = clean(text, prose)
    assert clean(once, prose) == once


def test_first_line_keeps_its_indentation():
    assert clean("\n\n    x = 1\n    y = 2", prose=False) == "    x = 1\n    y = 2"


# ---------------------------------------------------------------------------- contamination


def test_planted_leak_is_found(tmp_path, index):
    leak = "Before. LEAK3, leak4 leak5: " + " ".join(f"Leak{i}" for i in range(6, 16)) + " after"
    deep = "x " * 30 + " ".join(f"deep{i}" for i in range(13))
    twelve = "new " * 30 + " ".join(f"leak{i}" for i in range(12)) + " other"
    across = "new " * 25 + " ".join(f"half{i}" for i in range(14))  # two fields of a row are two texts
    split, counts = run(tmp_path, [*texts(20), leak, deep, twelve, across], index)
    kept = split["train"] + split["heldout"]
    assert counts["contaminated_removed"] == 2
    assert leak not in kept
    assert deep not in kept
    assert twelve in kept
    assert across in kept


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        contamination_index(tmp_path, 13, tmp_path / "index.npy")


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=12), max_size=6), st.lists(st.sampled_from("abc"), max_size=12)
)
def test_contamination_equals_brute_force(rows, words):
    def grams(words):
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    index = np.unique(ngram_hashes([" ".join(row) for row in rows], 3))
    assert len(index) == len(set().union(*map(grams, rows)))
    assert is_contaminated(", ".join(words).upper(), index, 3) == any(grams(words) & grams(row) for row in rows)


def test_forgotten_words_have_the_same_hashes(monkeypatch):
    lines = texts(20)
    remembered = ngram_hashes(lines, 5)
    monkeypatch.setattr(documents, "REMEMBERED_WORDS", 7)
    monkeypatch.setattr(documents, "_word_hashes", documents._WordHashes())
    assert (ngram_hashes(lines, 5) == remembered).all()
    assert len(documents._word_hashes) <= 7


def test_index_is_sorted_and_distinct(tmp_path):
    lines = texts(50, words=60)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"t": line}) for line in lines * 2))
    contamination_index(tmp_path, 5, tmp_path / "index.npy")
    index = np.load(tmp_path / "index.npy")
    assert index.dtype == np.uint64
    assert (index[1:] > index[:-1]).all()
    grams = {tuple(line.split()[i : i + 5]) for line in lines for i in range(56)}
    assert len(index) == len(grams)


# ------------------------------------------------------------------- deduplication and split


def test_duplicates_by_case_and_space(tmp_path):
    split, counts = run(
        tmp_path, ["Some words   of a text.", "some words of\na TEXT.", "5 + 3 is a sum, 8.", "5 - 3 is a sum, 8.", "a"]
    )
    assert counts["duplicates_removed"] == 1
    assert counts["too_short"] == 1 + 2 * (len("5 + 3 is a sum, 8.") < documents.MINIMUM_CHARACTERS)
    assert sorted(split["train"] + split["heldout"])[-1] == "Some words   of a text."


def test_operators_are_not_duplicates():
    assert identity("5 + 3", 0) != identity("5 - 3", 0)


def test_split_is_disjoint_complete_and_independent_of_order(tmp_path):
    lines = texts(200)
    split, counts = run(tmp_path, lines)
    assert not set(split["train"]) & set(split["heldout"])
    assert sorted(split["train"] + split["heldout"]) == sorted(lines)
    share = sum(map(len, split["heldout"])) / sum(map(len, lines))
    assert 0.04 <= share <= 0.05
    assert counts["characters"] == {name: sum(map(len, part)) for name, part in split.items()}
    assert run(tmp_path, lines[::-1])[0] == split
    assert run(tmp_path, lines, seed=1)[0] != split


def test_heldout_grows_with_need_up_to_a_fifth(tmp_path):
    lines = texts(200)
    total = sum(map(len, lines))
    wanted = run(tmp_path, lines, heldout_characters=total // 10)[1]["characters"]["heldout"]
    assert total / 10 <= wanted <= total / 10 + max(map(len, lines))
    most = run(tmp_path, lines, heldout_characters=10 * total)[1]["characters"]["heldout"]
    assert total / 5 <= most <= total / 5 + max(map(len, lines))


def test_character_limit_keeps_a_subset_of_about_that_size(tmp_path):
    lines = texts(100)
    split, counts = run(tmp_path, lines, limit=5000)
    kept = split["train"] + split["heldout"]
    assert set(kept) < set(lines)
    assert 5000 <= sum(map(len, kept)) < 5000 + max(map(len, lines))
    assert counts["over_character_limit"] == 100 - len(kept)


def test_rows_without_a_text_are_counted_and_said(tmp_path, capsys):
    lines = texts(20)
    split, counts = run(tmp_path, [*lines, None, None])
    assert sorted(split["train"] + split["heldout"]) == sorted(lines)
    assert counts["read"] == 20
    assert counts["rows_without"] == {"text": 2}
    assert "c: 2 rows left out, whose column text is empty" in capsys.readouterr().out


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="corpus c: no document left"):
        run(tmp_path, ["a", "b"])
