"""What is missing is named by its file."""

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
