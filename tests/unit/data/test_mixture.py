"""The properties training relies on: weights, epochs, and samples that depend on their index only."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosparse.data.mixture import Mixture, load_rows
from prosparse.experiment.training import Draw

SIZES = {"a": 7, "b": 13, "c": 101}


def corpora(sizes=SIZES):
    """Rows that say where they come from: [corpus number, row]."""
    return {
        name: [{"input_ids": [number, row]} for row in range(size)] for number, (name, size) in enumerate(sizes.items())
    }


def drawn(mixture):
    return [tuple(mixture[i]["input_ids"].tolist()) for i in range(len(mixture))]


def chained(draws, seed, sizes=SIZES):
    """The rows of each draw of a lineage: [[(corpus, row)]]."""
    return [
        drawn(Mixture(corpora(sizes), draw.mixture, draw.samples, seed, draws[:index]))
        for index, draw in enumerate(draws)
    ]


WEIGHTS = st.dictionaries(st.sampled_from(sorted(SIZES)), st.floats(0.1, 10), min_size=1)


@given(WEIGHTS, st.integers(0, 200), st.integers(0, 200), st.integers(0, 2**40))
def test_a_longer_mixture_begins_with_the_shorter(weights, length, more, seed):
    short = drawn(Mixture(corpora(), weights, length, seed))
    assert drawn(Mixture(corpora(), weights, length + more, seed))[:length] == short


DRAWS = st.lists(st.builds(Draw, mixture=WEIGHTS, samples=st.integers(0, 60)), max_size=5)


@given(DRAWS, st.integers(0, 2**40))
def test_a_lineage_reads_no_row_again_while_a_corpus_has_unread_ones(draws, seed):
    samples = [sample for part in chained(draws, seed) for sample in part]
    for number, (name, size) in enumerate(SIZES.items()):
        mine = [row for corpus, row in samples if corpus == number]
        for start in range(0, len(mine), size):
            assert len(set(mine[start : start + size])) == len(mine[start : start + size])
        if draws and name in draws[-1].mixture:
            last = Mixture(corpora(), draws[-1].mixture, draws[-1].samples, seed, draws[:-1])
            assert last.epochs()[name] == len(mine) / size
            before = len(mine) - [corpus for corpus, _ in drawn(last)].count(number)
            assert last.repeats().get(name, 0) == sum(position >= size for position in range(before, len(mine)))


@given(WEIGHTS, st.lists(st.integers(0, 90), min_size=1, max_size=4), st.integers(0, 2**40))
def test_a_draw_in_parts_equals_the_whole(weights, lengths, seed):
    parts = chained([Draw(mixture=weights, samples=length) for length in lengths], seed)
    whole = drawn(Mixture(corpora(), weights, sum(lengths), seed))
    assert [sample for part in parts for sample in part] == whole


@given(WEIGHTS, st.integers(0, 100))
def test_every_epoch_holds_every_row_once(weights, seed):
    samples = drawn(Mixture(corpora(), weights, 300, seed))
    for number, size in enumerate(SIZES.values()):
        mine = [row for corpus, row in samples if corpus == number]
        for start in range(0, len(mine), size):
            epoch = mine[start : start + size]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(range(size))
        if len(mine) >= 3 * size > 20:
            assert mine[:size] != mine[size : 2 * size]  # another permutation


def test_proportions_and_epochs():
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    length = 20000
    mixture = Mixture(corpora(), weights, length, 3)
    counts = np.bincount([corpus for corpus, _ in drawn(mixture)])
    expected = np.array([1, 2, 5]) / 8
    assert np.abs(counts / length - expected).max() < 4 * np.sqrt(0.25 / length)  # four standard errors
    assert mixture.epochs() == {name: counts[i] / size for i, (name, size) in enumerate(SIZES.items())}


def test_order_and_scale_of_weights_and_other_corpora_do_not_matter():
    one = drawn(Mixture(corpora(), {"a": 1, "c": 3}, 100, 0))
    assert drawn(Mixture(corpora(), {"c": 6, "a": 2}, 100, 0)) == one
    assert drawn(Mixture(corpora(), {"a": 1, "c": 3}, 100, 1)) != one


def test_sample():
    sample = Mixture(corpora(), {"a": 1}, 3, 0)[0]
    assert sample["input_ids"].dtype == sample["labels"].dtype == torch.long
    assert torch.equal(sample["input_ids"], sample["labels"])
    assert sample["input_ids"].data_ptr() != sample["labels"].data_ptr()


def test_unknown_and_empty_corpora_are_named():
    with pytest.raises(ValueError, match="'d'; allowed: a, b, c"):
        Mixture(corpora(), {"d": 1}, 3, 0)
    with pytest.raises(ValueError, match="corpus e has no rows"):
        Mixture({"e": []}, {"e": 1}, 3, 0)


def test_from_disk(tmp_path):
    for name, size in SIZES.items():
        for split in ("train", "heldout"):
            rows = [[row, ord(name), len(split)] for row in range(size)]
            datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(str(tmp_path / name / split))
    mixture = Mixture.load(tmp_path, {"a": 1, "b": 1}, 40, 0)
    assert {row[1].item() for row in (mixture[i]["input_ids"] for i in range(40))} == {ord("a"), ord("b")}
    heldout = load_rows(tmp_path)
    assert {name: tuple(rows.shape) for name, rows in heldout.items()} == {
        name: (size, 3) for name, size in SIZES.items()
    }
    assert (heldout["c"][:, 2] == len("heldout")).all()
    with pytest.raises(ValueError, match="no heldout rows"):
        load_rows(tmp_path / "nowhere")
