"""Claim 5 flips when its numbers flip."""

from __future__ import annotations

from helpers.claims import change_measurements, verdicts_of
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.claims.finding import Verdict


def test_claim5_fails_on_scattered_points_and_is_untestable_on_few(synthetic, tmp_path):
    for index, run in enumerate(synthetic.experiment.figures.final_factor):
        change_measurements(synthetic, run, lambda entry, i=index: entry.update(sparsity=0.9 if i % 2 else 0.6))
    assert verdicts_of(synthetic)[5].verdict == Verdict.FAILS
    few = {**CONFIG["figures"], "final_factor": ["final-0.01", "final-0.1", "final-1"]}
    assert verdicts_of(Synthetic(tmp_path / "few", {**CONFIG, "figures": few}).write())[5].verdict == Verdict.UNTESTABLE


def test_claim5_needs_one_sparsity_from_two_histories(synthetic, tmp_path):
    assert verdicts_of(synthetic)[5].verdict is Verdict.HOLDS
    change_measurements(synthetic, "final-early", lambda entry: entry.update(sparsity=entry["sparsity"] - 0.02))
    verdict = verdicts_of(synthetic)[5]
    assert verdict.verdict is Verdict.FAILS
    assert verdict.deciding.ours == "2.00 (1.90 to 2.10) points"
    once = {**CONFIG["figures"], "final_factor": CONFIG["figures"]["final_factor"][:-1]}
    assert verdicts_of(Synthetic(tmp_path, {**CONFIG, "figures": once}).write())[5].verdict is Verdict.UNDECIDED
