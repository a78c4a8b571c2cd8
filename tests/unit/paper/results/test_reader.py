"""Measurements are read as they were recorded; what is missing is named by its file."""

from __future__ import annotations

import pytest

from prosparse.paper.results.reader import MissingResult
from prosparse.paper.tables import registry as tables


def test_a_missing_file_is_named(synthetic):
    path = synthetic.layout.sparsity("vanilla", 1)
    path.unlink()
    with pytest.raises(MissingResult, match=r"measurements/vanilla/seed1/sparsity\.json"):
        tables.write("table1_early_baselines", synthetic.layout)


def test_an_activation_that_was_not_measured_is_named(synthetic):
    with pytest.raises(MissingResult, match=r"fatrelu-0\.5 not measured"):
        synthetic.results.sparsity("progressive", "fatrelu-0.5")


def test_sparsity_without_training_and_the_weights_that_each_method_skips(synthetic):
    with pytest.raises(MissingResult, match=r"measurements/dense/seed1/training_free/silu\.json"):
        synthetic.results.training_free("dense", "silu")
    found = {(each.method, each.target): each for each in synthetic.results.training_free("base", "silu")}
    assert list(found) == [(method, target) for method in ("cats", "teal", "cett") for target in (0.5, 0.9, None)]
    assert found["teal", 0.9].sparsity.sparsity.mean == pytest.approx(89)
    assert found["teal", 0.9].inputs.mean == pytest.approx(90)
    # gate, up and down: CATS skips up and down, TEAL all three by their inputs, CETT down
    assert {key: each.skipped.mean for key, each in found.items() if key[1] == 0.9} == {
        ("cats", 0.9): pytest.approx((0 + 89 + 89) / 3),
        ("teal", 0.9): pytest.approx((90 + 90 + 89) / 3),
        ("cett", 0.9): pytest.approx((0 + 0 + 89) / 3),
    }


def test_the_sparsity_after_every_stage(synthetic):
    with pytest.raises(MissingResult, match=r"measurements/shifted/seed1/stages\.json"):
        synthetic.results.stage_sparsity("shifted")
    found = synthetic.results.stage_sparsity("progressive")
    assert [(each.stage, each.step) for each in found] == [
        (None, 0), (0, 40), (1, 60), (2, 100), (3, 120), (4, 160), (5, 180),
    ]  # fmt: skip
    shares = [each.sparsity.sparsity.mean for each in found]
    assert shares[0] == shares[1] < shares[2] < shares[3] < shares[6]  # lambda is 0 in stage 0
    assert found[-1].sparsity == synthetic.results.sparsity("progressive", "relu")
    (entry,) = found[0].seeds
    assert 100 * entry["corpora"]["prose"]["sparsity"] == found[0].sparsity.corpora[0].sparsity.mean
