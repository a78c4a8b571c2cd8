"""Claim 6 flips when its numbers flip."""

from __future__ import annotations

from helpers.claims import change_measurements, verdicts_of

from prosparse.paper.claims.finding import Verdict


def _set(entry, layers):
    for corpus in entry["corpora"].values():
        corpus["layer_sparsity"] = layers


def test_claim6_flips_with_the_order_of_layers(synthetic):
    change_measurements(synthetic, "progressive", lambda entry: _set(entry, entry["layer_sparsity"][::-1]))
    assert verdicts_of(synthetic)[6].verdict == Verdict.FAILS


def test_claim6_needs_the_low_layers_lifted_most(synthetic):
    def lift_high(entry):
        _set(entry, [0.85, 0.86, 0.87, 0.90, 0.91, 0.99])

    change_measurements(synthetic, "progressive", lift_high, ["fatrelu-0.01"])
    assert verdicts_of(synthetic)[6].verdict == Verdict.FAILS


def test_claim6_is_undecided_where_corpora_disagree(synthetic):
    def turn_one(entry):
        layers = entry["corpora"]["prose"]["layer_sparsity"]
        entry["corpora"]["prose"]["layer_sparsity"] = layers[::-1]

    change_measurements(synthetic, "progressive", turn_one)
    assert verdicts_of(synthetic)[6].verdict is Verdict.UNDECIDED
