"""Claim 4 flips when its numbers flip."""

from __future__ import annotations

import pytest
from helpers.claims import change_measurements, verdicts_of

from prosparse.paper.claims.finding import Verdict


@pytest.mark.parametrize(
    ("activation", "change"),
    [
        ("fatrelu-0.01", {"sparsity": 0.8861}),  # no gain
        ("fatrelu-0.01", {"loss": 3.52}),  # costs
        ("fatrelu-0.03", {"loss": 3.40}),  # a larger threshold is free
    ],
)
def test_claim4_flips(synthetic, activation, change):
    change_measurements(synthetic, "progressive", lambda entry: entry.update(change), [activation])
    assert verdicts_of(synthetic)[4].verdict == Verdict.FAILS
