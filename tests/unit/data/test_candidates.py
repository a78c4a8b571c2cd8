"""Cleaning, deduplication and the split, against brute force and planted cases."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosparse.data.candidates import MINIMUM_CHARACTERS, build, clean, identity, split_hash
from prosparse.experiment.data import Corpus
from prosparse.experiment.specifications import CandidatesSpecification

WORDS = np.array([f"word{i}" for i in range(300)])


def texts(count, seed=0, words=40):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, words)) for _ in range(count)]


def run(tmp_path, lines, seed=0, heldout_characters=0, limit=None):
    """Build a corpus of these documents; returns ({split: texts}, counts)."""
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    source = {"files": [str(tmp_path / "rows.jsonl")]}
    corpus = Corpus(stands_for="pile", kind="language_modelling", source=source, character_limit=limit)
    out = tmp_path / "out.parquet", tmp_path / "out.json"
    wanted = CandidatesSpecification(corpus=corpus, heldout_characters=heldout_characters)
    build("c", wanted, None, out[0], seed=seed)
    rows = pq.read_table(out[0]).to_pylist()
    split = {name: [row["text"] for row in rows if row["split"] == name] for name in ("train", "heldout")}
    return split, json.loads(out[1].read_text())


# --------------------------------------------------------------------------------- cleaning


def test_clean_keeps_code_and_normalizes_prose():
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


# ------------------------------------------------------------------- deduplication and split


def test_duplicates_by_case_and_space(tmp_path):
    split, counts = run(
        tmp_path, ["Some words   of a text.", "some words of\na TEXT.", "5 + 3 is a sum, 8.", "5 - 3 is a sum, 8.", "a"]
    )
    assert counts["duplicates_removed"] == 1
    assert counts["too_short"] == 1 + 2 * (len("5 + 3 is a sum, 8.") < MINIMUM_CHARACTERS)
    assert sorted(split["train"] + split["heldout"])[-1] == "Some words   of a text."


def test_operators_are_not_duplicates():
    assert identity("5 + 3", 0) != identity("5 - 3", 0)


@pytest.mark.parametrize(
    "other",
    [
        "THE MOON, it is said, orbits the Earth!",
        "the moon\n\nit is said\torbits the earth",
        "“The moon,” it is said, orbits—the Earth.",
    ],
)
def test_texts_of_the_same_words_are_on_the_same_side(other):
    assert split_hash(other, 0) == split_hash("The moon, it is said, orbits the Earth.", 0)


def test_texts_without_words_are_told_apart():
    assert split_hash("+ + + +", 0) != split_hash("- - - -", 0)


def test_near_duplicates_of_two_corpora_are_on_the_same_side(tmp_path):
    lines = texts(200)
    first = run(tmp_path, lines)[0]
    second = run(tmp_path, [line.upper().replace(" ", ", ") for line in lines])[0]
    plain = {name: {text.replace(",", "").lower() for text in part} for name, part in second.items()}
    # what is held out is 4 % of the characters of each: only the last may be on another side
    assert len(set(first["heldout"]) ^ plain["heldout"]) <= 1


def test_heldout_text_is_limited_to_some_multiple_of_what_is_wanted(tmp_path):
    lines = texts(200)
    held = run(tmp_path, lines, heldout_characters=30)[1]["characters"]["heldout"]
    assert 16 * 30 <= held <= 16 * 30 + max(map(len, lines))


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
    assert "c: 2 rows skipped, because their column text is empty" in capsys.readouterr().out


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="corpus c: no document left"):
        run(tmp_path, ["a", "b"])
