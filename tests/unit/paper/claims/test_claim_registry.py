"""Ten claims, each with a verdict and its numbers."""

from __future__ import annotations

import json

from helpers.claims import verdicts_of
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.claims import registry as claims
from prosparse.paper.claims.finding import Verdict, all_hold


def test_ten_claims_with_a_verdict_and_numbers(synthetic):
    verdicts = verdicts_of(synthetic)
    assert sorted(verdicts) == list(range(1, 11))
    for number, verdict in verdicts.items():
        # bytes do not allow the 4.52 times of claim 8
        assert verdict.verdict is (Verdict.FAILS if number == 8 else Verdict.HOLDS), verdict
        assert verdict.evidence


def test_write(synthetic):
    markdown, data = claims.write(synthetic.layout)
    text = markdown.read_text()
    assert "Of the paper's 10 claims, 9 hold and 1 does not hold." in text
    table = text.partition("\n## ")[0]
    assert [line.count("|") for line in table.splitlines() if line.startswith("|")] == [8] * 12
    written = json.loads(data.read_text())["claims"]
    assert [claim["number"] for claim in written] == list(range(1, 11))
    assert all(f"## {claim['number']}. {claim['title']}: {claim['verdict']}" in text for claim in written)


def test_a_verdict_follows_from_its_parts(synthetic):
    for number, verdict in verdicts_of(synthetic).items():
        judged = [part.verdict for part in verdict.parts]
        assert all_hold(judged) is verdict.verdict, number
        assert verdict.deciding.verdict is verdict.verdict


def test_the_papers_numbers_stand_beside_ours(synthetic):
    printed = {(number, each.quantity): each.paper for number, v in verdicts_of(synthetic).items() for each in v.parts}
    # Tables 1, 5, 9 and 2 of the paper
    assert printed[2, "tiny (for 7B): sparsity"] == "89.32%"
    assert printed[2, "tiny (for 7B): loss increase relative to the original"] == "+0.50 points of performance"
    assert printed[3, "tiny (for 7B): loss reduction over the nearest constant λ"] == "38.46 against 36.34%"
    assert printed[4, "tiny (for 7B): sparsity gain from FATReLU 0.01"] == "1.21 points"
    assert printed[8, "Largest speedup with predictors"] == "4.52×"
    assert printed[9, "Step (2) at the 13B shape, on a CPU"] == "2.44×"


def test_evidence_names_models_for_readers(synthetic):
    for verdict in verdicts_of(synthetic).values():
        assert "@" not in verdict.evidence


def test_without_runs_nothing_is_testable(nothing):
    assert {verdict.verdict for verdict in claims.judge(nothing.results)} == {Verdict.UNTESTABLE}


def test_needs_cover_what_is_read(synthetic):
    complete = claims.judge(synthetic.results)
    needs = claims.CLAIMS.all_needs(synthetic.experiment)
    for kind, paths in needs.files(synthetic.layout).items():
        assert paths or kind in (
            "precision",
            "predicted_benchmarks",
            "trained_operators",
            "training",
            "training_free",
        ), kind
    kept = {p for paths in needs.files(synthetic.layout).values() for p in paths}
    for path in (synthetic.directory / "measurements").rglob("*.json"):
        if path not in kept:
            path.unlink()
    assert claims.judge(synthetic.results) == complete


def test_a_claim_without_its_measurements_is_not_testable(synthetic):
    before = verdicts_of(synthetic)
    synthetic.layout.stage_sparsity("vanilla", 1).unlink()
    after = verdicts_of(synthetic)
    assert after[1].verdict is Verdict.UNTESTABLE
    assert after[1].evidence == "A measurement is missing: measurements/vanilla/seed1/stages.json: no such result."
    assert [after[number] for number in range(2, 11)] == [before[number] for number in range(2, 11)]


def test_numbers_whose_sequences_were_not_kept_have_no_interval(synthetic):
    """Their means stay; what an interval over sequences decided is undecided."""
    before = verdicts_of(synthetic)
    for path in sorted((synthetic.directory / "measurements").glob("*/seed1/s*.json")):
        synthetic.edit(path, drop_sequences)
    after = verdicts_of(synthetic)
    for number in (1, 2, 4, 7):
        assert after[number].verdict is Verdict.UNDECIDED
        shown = [(part.ours.partition(" (")[0], part.ours.endswith("(no interval)")) for part in after[number].parts]
        assert shown == [(part.ours.partition(" (")[0], True) for part in before[number].parts]
    assert [after[number] for number in (6, 8, 9)] == [before[number] for number in (6, 8, 9)]
    markdown, _ = claims.write(synthetic.layout)
    assert "measured before the values of each sequence were kept" in markdown.read_text()


def drop_sequences(value):
    for entry in value["measurements"]:
        for corpus in entry["corpora"].values():
            corpus.pop("sequences", None)


def test_claims_1_and_3_bear_runs_that_were_not_trained(tmp_path):
    still = {"init": {"pretrained": "some-model"}, "activation": "relu", "mixture": "mixed", "stages": [{"until": 0}]}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "vanilla": still, "progressive": still}}
    raw["rows"] = {key: pair.replace("@fatrelu-0.01", "") for key, pair in CONFIG["rows"].items() if "0.03" not in key}
    verdicts = verdicts_of(Synthetic(tmp_path, {**raw, "predictors": None, "decoding": None}).write())
    assert verdicts[1].evidence == "The two runs share no checkpoints before and after steps with λ > 0."
    assert "Token budgets differ" in verdicts[3].evidence
