"""Claim 10 flips when its numbers flip."""

from __future__ import annotations

import pytest
from helpers.claims import change_measurements, verdicts_of

from prosparse.paper.claims.finding import Verdict


@pytest.mark.parametrize(("run", "change"), [("sft-0", {"sparsity": 0.95}), ("sft-0.4", {"loss": 3.0})])
def test_claim10_flips(synthetic, run, change):
    change_measurements(synthetic, run, lambda entry: entry.update(change))
    assert verdicts_of(synthetic)[10].verdict == Verdict.FAILS
