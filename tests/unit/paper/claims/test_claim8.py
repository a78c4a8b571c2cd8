"""Claim 8 flips when its numbers flip, and the paper's own rows pass its test of order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.synthetic_results import CONFIG, Synthetic, spread

from prosparse.paper.claims import registry as claims
from prosparse.paper.claims.claim8 import Compared, ordered, papers_rows
from prosparse.paper.claims.finding import Verdict
from prosparse.paper.results.quartiles import Quartiles
from prosparse.paper.results.value import Value, exact
from prosparse.published.claims import published_claims
from prosparse.published.settings import largest_speedup


def _verdict(synthetic):
    return next(verdict for verdict in claims.judge(synthetic.results) if verdict.number == 8)


def _speed(synthetic, row, times, shape=None):
    def edit(value):
        model = next(model for model in value["models"] if model["row"] == row)
        model["modes"]["predicted"]["times_faster_than_dense"] = spread(times)

    synthetic.edit(synthetic.layout.decoding(shape), edit)


@pytest.fixture
def fast(synthetic):
    """As fast as the paper."""
    _speed(synthetic, "ProSparse-7B", 4.52, "llama-7b")
    return synthetic


def test_the_papers_own_rows_are_ordered():
    tolerance = published_claims()[8].tolerance
    for scale in ("7B", "13B"):
        assert ordered(scale, papers_rows(scale), tolerance).verdict is Verdict.HOLDS
    strict = {**tolerance, "sparsity": 0.0}
    assert ordered("7B", papers_rows("7B"), strict).verdict is Verdict.FAILS  # rows that are close are not
    assert largest_speedup().name == "ProSparse-13B*"


def test_it_fails_where_the_speed_is_not_reached(synthetic):
    verdict = _verdict(synthetic)
    assert verdict.verdict == Verdict.FAILS
    assert "1.69×, of Synthetic llama-7b as ProSparse-7B" in verdict.evidence
    assert "The paper's is 4.52× (ProSparse-13B*)" in verdict.evidence
    assert "allow at most 1.79×" in verdict.evidence


def test_it_holds_where_everything_is_ordered_and_fast(fast):
    assert _verdict(fast).verdict == Verdict.HOLDS


def test_it_fails_where_a_sparser_row_is_predicted_worse(fast):
    path = fast.layout.prediction("progressive", "fatrelu-0.01", 1)
    fast.edit(path, lambda value: value["kinds"]["nonzero"].update(activation_recall=0.5))
    verdict = _verdict(fast)
    assert verdict.verdict == Verdict.FAILS
    assert "FATReLU 0.01* does not have a higher recall than *tiny, Vanilla ReLU*" in verdict.evidence


def test_only_the_predictor_that_decodes_counts(fast):
    path = fast.layout.prediction("progressive", "fatrelu-0.01", 1)
    fast.edit(path, lambda value: value["kinds"]["top"].update(activation_recall=0.5))
    assert _verdict(fast).verdict == Verdict.HOLDS


def test_it_fails_where_a_sparser_row_is_slower_by_more_than_the_spread(fast):
    _speed(fast, "Vanilla ReLU-7B", 2.0)
    assert "is not faster than *tiny, Vanilla ReLU*" in _verdict(fast).evidence
    assert _verdict(fast).verdict == Verdict.FAILS


def test_synthetic_models_are_compared_in_speed(fast):
    _speed(fast, "ReluLLaMA-7B", 5.5, "llama-7b")
    verdict = _verdict(fast)
    assert verdict.verdict == Verdict.FAILS
    assert "as ProSparse-7B is not faster than as ReluLLaMA-7B" in verdict.evidence


def test_speeds_that_overlap_decide_nothing():
    def row(name, sparsity, speed):
        return Compared(name, sparsity, exact(sparsity), exact(sparsity), Quartiles(speed, 0.9 * speed, 1.1 * speed))

    def speed(*values):
        return replace(row(*values), recall=None, predicted_sparsity=None)

    tolerance = {"sparsity": 5, "recall": 0.5}
    for rows, expected in (
        ([row("a", 60, 1.05), row("b", 90, 1.0)], Verdict.HOLDS),  # in recall and predicted sparsity
        ([speed("a", 60, 1.05), speed("b", 90, 1.0)], Verdict.UNTESTABLE),
        ([row("a", 60, 1.05), row("b", 90, 2.0)], Verdict.HOLDS),
        ([row("a", 60, 1.05), row("b", 64, 2.0)], Verdict.UNTESTABLE),
        ([row("a", 60, 1.0), row("b", 75, 1.05), row("c", 90, 2.0)], Verdict.HOLDS),
    ):
        assert ordered("g", rows, tolerance).verdict is expected


@pytest.mark.parametrize(
    ("recall", "expected"),
    [
        ((89.6,), Verdict.HOLDS),  # lower by less than the allowance
        ((89.4,), Verdict.FAILS),
        ((89.7, 89.75, 89.8), Verdict.HOLDS),
        ((89.0, 90.2, 89.6), Verdict.UNDECIDED),  # seeds differ by more
        ((88.0, 88.1, 88.2), Verdict.FAILS),
    ],
)
def test_recall_may_be_lower_by_the_allowance(recall, expected):
    lower = Compared("a", 60, Value((90.0,) * len(recall)), None, None)
    higher = Compared("b", 90, Value(recall), None, None)
    assert ordered("g", [lower, higher], {"sparsity": 5, "recall": 0.5}).verdict is expected


def test_without_order_speed_alone_is_not_enough(fast):
    fast.raw["rows"] = {"ProSparse-7B*": "progressive", "ProSparse-7B": "progressive@fatrelu-0.01"}
    fast.raw["decoding"]["shapes"]["llama-7b"]["rows"] = ["ProSparse-7B"]
    one = Synthetic(fast.directory, fast.raw).write()
    _speed(one, "ProSparse-7B", 4.6, "llama-7b")
    assert _verdict(one).verdict == Verdict.UNTESTABLE


@pytest.mark.parametrize(
    ("section", "reason"),
    [("predictors", "the experiment trains no predictors"), ("decoding", "the experiment times no decoding")],
)
def test_it_is_untestable_without_either(tmp_path, section, reason):
    raw = {key: value for key, value in CONFIG.items() if key != section}
    verdict = _verdict(Synthetic(tmp_path, raw).write())
    assert verdict.verdict == Verdict.UNTESTABLE
    assert reason in verdict.evidence
