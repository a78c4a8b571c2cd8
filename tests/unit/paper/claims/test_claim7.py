"""Claim 7 flips when its numbers flip."""

from __future__ import annotations

from helpers.claims import change_measurements, verdicts_of

from prosparse.paper.claims.registry import FAILS


def test_claim7_flips_when_prose_is_sparsest(synthetic):
    change_measurements(synthetic, "progressive", lambda entry: entry["corpora"]["prose"].update(sparsity=0.97))
    assert verdicts_of(synthetic)[7].verdict == FAILS
