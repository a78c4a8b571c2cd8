"""Claim 3 flips when its numbers flip."""

from __future__ import annotations

import pytest
from helpers.claims import change_measurements, verdicts_of
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.claims.finding import Verdict


def test_claim3_interpolates_the_frontier(synthetic):
    for run, sparsity, loss in (
        ("constant-0.05", 0.80, 3.50),
        ("constant-0.1", 0.88, 3.54),
        ("constant-0.4", 0.92, 3.60),
    ):
        change_measurements(
            synthetic, run, lambda e, s=sparsity, x=loss: e.update(sparsity=s, loss=x), ["fatrelu-0.01"]
        )
    for sparsity, loss, expected in (
        (0.90, 3.50, Verdict.HOLDS),
        (0.90, 3.565, Verdict.FAILS),
        (0.90, 3.60, Verdict.FAILS),
    ):
        change_measurements(
            synthetic, "progressive", lambda e, s=sparsity, x=loss: e.update(sparsity=s, loss=x), ["fatrelu-0.01"]
        )
        verdict = verdicts_of(synthetic)[3]
        assert verdict.verdict == expected
        assert "At equal λ (0.4)" in verdict.evidence
    assert "0.030 nats/token worse (95% interval" in verdict.evidence  # 3.60 against 3.57 half way


@pytest.mark.parametrize(
    ("sparsity", "loss", "expected"),
    [
        (0.99, 3.0, Verdict.HOLDS),
        (0.99, 9.0, Verdict.UNTESTABLE),
        (0.5, 9.0, Verdict.FAILS),
        (0.5, 3.0, Verdict.UNTESTABLE),
    ],
)
def test_claim3_out_of_range_is_decided_by_dominance_alone(synthetic, sparsity, loss, expected):
    change_measurements(
        synthetic, "progressive", lambda entry: entry.update(sparsity=sparsity, loss=loss), ["fatrelu-0.01"]
    )
    verdict = verdicts_of(synthetic)[3]
    assert verdict.verdict == expected
    assert ("range" if expected == Verdict.UNTESTABLE else "than every constant-λ run") in verdict.evidence


def test_claim3_is_undecided_at_unequal_budgets(tmp_path):
    short = {**CONFIG["runs"]["constant-0.1"], "stages": [{"until": 40}, {"until": 80, "peak": 0.1}]}
    base = {**CONFIG["runs"]["base"], "stages": [{"until": 200}]}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": base, "constant-0.1": short}}
    verdict = verdicts_of(Synthetic(tmp_path, raw).write())[3]
    assert verdict.verdict == Verdict.UNTESTABLE
    assert "Token budgets differ" in verdict.evidence
