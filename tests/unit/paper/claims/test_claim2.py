"""Claim 2 flips when its numbers flip."""

from __future__ import annotations

import pytest
from helpers.claims import change_measurements, precise, verdicts_of
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.claims.finding import Verdict
from prosparse.paper.claims.registry import CLAIMS


@pytest.mark.parametrize(("key", "value"), [("sparsity", 0.80), ("loss", 3.60)])
def test_claim2_needs_sparsity_and_quality(synthetic, key, value):
    change_measurements(synthetic, "progressive", lambda entry: entry.update({key: value}), ["fatrelu-0.01"])
    assert verdicts_of(synthetic)[2].verdict == Verdict.FAILS


def test_claim2_compares_with_vanilla_where_more_training_hides_the_cost(tmp_path):
    base = {**CONFIG["runs"]["base"], "stages": [{"until": 400}]}  # 180 more steps are 45 % more
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": base}}
    synthetic = Synthetic(tmp_path, raw).write()
    assert verdicts_of(synthetic)[2].verdict == Verdict.HOLDS  # 0.012 behind vanilla ReLU: within the tolerance
    change_measurements(synthetic, "vanilla", lambda entry: entry.update(loss=3.40))
    verdict = verdicts_of(synthetic)[2]
    assert verdict.verdict == Verdict.FAILS
    assert "was trained on 45% more tokens than the original" in verdict.evidence


def test_claim2_compares_with_vanilla_where_other_data_hides_the_cost(tmp_path):
    data = {**CONFIG["data"], "mixtures": {**CONFIG["data"]["mixtures"], "prose": {"prose": 1.0}}}
    base = {**CONFIG["runs"]["base"], "mixture": "prose"}
    raw = {**CONFIG, "data": data, "runs": {**CONFIG["runs"], "base": base}}
    synthetic = Synthetic(tmp_path, raw).write()
    change_measurements(synthetic, "vanilla", lambda entry: entry.update(loss=3.40))
    verdict = verdicts_of(synthetic)[2]
    assert verdict.verdict == Verdict.FAILS
    assert "mixture `mixed` after `prose`" in verdict.evidence


def test_claim2_is_undecided_without_vanilla_where_more_training_hides_the_cost(tmp_path):
    base = {**CONFIG["runs"]["base"], "stages": [{"until": 400}]}
    rows = {row: pair for row, pair in CONFIG["rows"].items() if not row.startswith("Vanilla")}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": base}, "rows": rows}
    assert verdicts_of(Synthetic(tmp_path, raw).write())[2].verdict is Verdict.UNDECIDED


def test_one_seed_of_unknown_deviation_decides_nothing_about_runs(tmp_path):
    verdicts = verdicts_of(Synthetic(tmp_path, {**CONFIG, "seed_deviation": None}).write())
    assert {number for number, each in verdicts.items() if each.verdict is Verdict.UNDECIDED} == {1, 2, 5, 10}
    assert any("(no interval)" in part.ours for part in verdicts[2].parts)
    assert verdicts[4].verdict is Verdict.HOLDS  # the same weights


def _pretrained(directory, until):
    origin = {"pretrained": "results/packages/some-model-1.0", "gguf_file": "Some-135M.Q4_1.gguf"}
    base = {**CONFIG["runs"]["base"], "init": origin, "stages": [{"until": until}]}
    return Synthetic(directory, {**CONFIG, "runs": {**CONFIG["runs"], "base": base}}).write()


@pytest.mark.parametrize("until", [0, 1])
def test_claim2_takes_a_pretrained_original_as_it_is_by_benchmarks(tmp_path, until):
    synthetic = _pretrained(tmp_path, until)
    for run, activation in CLAIMS.all_needs(synthetic.experiment).benchmarks:
        path = synthetic.layout.benchmarks(run, activation, 1)
        synthetic.edit(path, precise(0.05 if run == "vanilla" else 0.0))
    verdict = verdicts_of(synthetic)[2]
    assert verdict.verdict == Verdict.HOLDS
    assert "is compared as well" not in verdict.evidence
    assert "At equal tokens, it is 5.00 points worse" in verdict.evidence  # a finding, and not the claim's


@pytest.mark.parametrize("until", [0, 1])
def test_claim2_compares_with_vanilla_by_loss_on_text_that_a_pretrained_original_was_not_trained_on(tmp_path, until):
    synthetic = _pretrained(tmp_path, until)
    assert verdicts_of(synthetic)[2].verdict == Verdict.HOLDS  # 0.012 behind vanilla ReLU: within the tolerance
    change_measurements(synthetic, "vanilla", lambda entry: entry.update(loss=3.40))
    verdict = verdicts_of(synthetic)[2]
    assert verdict.verdict == Verdict.FAILS
    assert f"was trained on {180 * 2048:,} more tokens than the original" in verdict.evidence


def test_an_untrained_original_from_scratch_is_judged(tmp_path):
    base = {**CONFIG["runs"]["base"], "stages": [{"until": 0}]}
    synthetic = Synthetic(tmp_path, {**CONFIG, "runs": {**CONFIG["runs"], "base": base}}).write()
    assert f"was trained on {180 * 2048:,} more tokens than the original" in verdicts_of(synthetic)[2].evidence
