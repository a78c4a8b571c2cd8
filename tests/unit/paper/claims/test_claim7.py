"""Claim 7 flips when its numbers flip."""

from __future__ import annotations

from helpers.claims import change_measurements, verdicts_of

from prosparse.paper.claims.finding import Verdict


def test_claim7_flips_when_prose_is_sparsest(synthetic):
    def raise_prose(entry):
        entry["corpora"]["prose"]["sequences"]["sparsity"] = [0.97] * 8

    assert verdicts_of(synthetic)[7].verdict == Verdict.HOLDS
    change_measurements(synthetic, "progressive", raise_prose)
    assert verdicts_of(synthetic)[7].verdict == Verdict.FAILS
