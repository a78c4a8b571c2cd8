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
