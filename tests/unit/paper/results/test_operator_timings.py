"""What is asked of the operators' timings."""

from __future__ import annotations

import pytest

from prosparse.experiment import table2_rows
from prosparse.published.tables import published_table


def test_densities_are_the_papers_and_those_of_the_config_that_are_not_near_one(synthetic):
    found = table2_rows.densities(synthetic.experiment)
    assert found == {
        "7B": [1, 0.5, 0.3396, 0.3302, 0.1189, 0.1068, 0.0854, 0.05],  # the config's 0.107 is ProSparse-7B's
        "13B": [1, 0.5, 0.2844, 0.1203, 0.112, 0.107, 0.05],  # and 0.005 off ProSparse-13B's 0.112: kept apart
        "1B": [1, 0.5, 0.107, 0.05],
    }
    for table in ("table2_acceleration", "table2_early_baselines"):
        for row in published_table(table):
            if row["average_sparsity"]:
                scale = "13B" if "13B" in row["setting"] else "7B"
                assert 1 - float(row["average_sparsity"]) / 100 in map(pytest.approx, found[scale]), row["setting"]


def test_trained_rows_are_those_of_table_2_that_a_run_stands_for(synthetic):
    assert table2_rows.trained(synthetic.experiment) == {
        "ProSparse-7B*": "progressive@relu",
        "ProSparse-7B": "progressive@fatrelu-0.01",
        "Vanilla ReLU-7B": "vanilla@relu",
        "Fixed L1-7B": "constant-0.1@relu",
    }


def test_drelu_is_not_timed_since_its_steps_skip_different_neurons(synthetic):
    rows = {**synthetic.experiment.rows, "ProSparse-7B": "progressive@drelu"}
    assert "ProSparse-7B" not in table2_rows.trained(synthetic.experiment.model_copy(update={"rows": rows}))
