"""The measure of quality by which claims compare."""

from __future__ import annotations

from helpers.claims import change_measurements, precise, verdicts_of

from prosparse.paper.claims.finding import Verdict
from prosparse.paper.claims.registry import CLAIMS


def test_quality_is_average_performance_where_it_can_resolve_the_tolerance(synthetic):
    for run, activation in CLAIMS.all_needs(synthetic.experiment).benchmarks:
        synthetic.edit(synthetic.layout.benchmarks(run, activation, 1), precise(0.0))
    assert "Quality is measured by average performance" in verdicts_of(synthetic)[2].evidence
    assert verdicts_of(synthetic)[2].verdict == Verdict.HOLDS
    change_measurements(
        synthetic, "progressive", lambda entry: entry.update(loss=9.9), ["fatrelu-0.01"]
    )  # no longer looked at
    assert verdicts_of(synthetic)[2].verdict == Verdict.HOLDS
    synthetic.edit(synthetic.layout.benchmarks("progressive", "fatrelu-0.01", 1), precise(-0.02))
    verdict = verdicts_of(synthetic)[2]
    assert verdict.verdict == Verdict.FAILS
    # the rows' own differences cancel; the deviation over seeds, 0.05 points, remains
    assert "2.00 points (1.90 to 2.10)" in [part.ours for part in verdict.parts]
