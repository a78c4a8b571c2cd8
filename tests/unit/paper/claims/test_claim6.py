"""Claim 6 flips when its numbers flip."""

from __future__ import annotations

from helpers.claims import change_measurements, verdicts_of

from prosparse.paper.claims.registry import FAILS


def test_claim6_flips_with_the_order_of_layers(synthetic):
    change_measurements(synthetic, "progressive", lambda entry: entry["layer_sparsity"].reverse())
    assert verdicts_of(synthetic)[6].verdict == FAILS


def test_claim6_needs_the_low_layers_lifted_most(synthetic):
    def lift_high(entry):
        entry["layer_sparsity"] = [0.85, 0.86, 0.87, 0.90, 0.91, 0.99]

    change_measurements(synthetic, "progressive", lift_high, ["fatrelu-0.01"])
    assert verdicts_of(synthetic)[6].verdict == FAILS
