"""Ten claims, each with a verdict and its numbers."""

from __future__ import annotations

import json

from helpers.claims import verdicts_of
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.claims import registry as claims
from prosparse.paper.claims.finding import Verdict


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
    assert "9 hold, 1 do not, 0 are undecided (the 95 % interval straddles the tolerance), 0 cannot be tested" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("| ")}) == 1
    assert len(json.loads(data.read_text())["claims"]) == 10


def test_without_runs_nothing_is_testable(nothing):
    assert {verdict.verdict for verdict in claims.judge(nothing.results)} == {Verdict.UNTESTABLE}


def test_needs_cover_what_is_read(synthetic):
    needs = claims.CLAIMS.all_needs(synthetic.experiment)
    for kind, paths in needs.files(synthetic.layout).items():
        assert paths or kind in ("predicted_benchmarks", "training"), kind
    kept = {p for paths in needs.files(synthetic.layout).values() for p in paths}
    for path in (synthetic.directory / "measurements").rglob("*.json"):
        if path not in kept:
            path.unlink()
    claims.judge(synthetic.results)


def test_claims_1_and_3_bear_runs_that_were_not_trained(tmp_path):
    still = {"init": {"pretrained": "some-model"}, "activation": "relu", "mixture": "mixed", "stages": [{"until": 0}]}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "vanilla": still, "progressive": still}}
    raw["rows"] = {key: pair.replace("@fatrelu-0.01", "") for key, pair in CONFIG["rows"].items() if "0.03" not in key}
    verdicts = verdicts_of(Synthetic(tmp_path, {**raw, "predictors": None, "decoding": None}).write())
    assert verdicts[1].evidence == "The two runs share no checkpoints before and after steps with λ > 0."
    assert "Token budgets differ" in verdicts[3].evidence
