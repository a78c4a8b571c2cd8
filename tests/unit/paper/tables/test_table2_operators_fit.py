"""Table 2, the lines through the operators' times."""

from __future__ import annotations

import pytest
from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import cells_of

from prosparse.paper.tables.registry import TABLES


def test_fit_finds_what_the_times_were_made_with(synthetic):
    table = TABLES.build("table2_operators_fit", synthetic.results)
    cold, warm = (cells_of(table, "7B, step (3)", protocol) for protocol in ("cold", "warm"))
    assert cold["fixed_us"].ours.mean == pytest.approx(24)
    assert cold["slope_us"].ours.mean == pytest.approx(3600)
    assert cold["fixed_share"].ours.mean == pytest.approx(100 * 24 / (24 + 3600 * 0.1068))
    assert cold["points"].ours.mean == 6  # of eight, two are denser than any of the paper's
    assert warm["slope_us"].ours.mean == pytest.approx(1800)
    assert warm["slope_us"].published == ""
    assert cells_of(table, "1B, step (2)", "cold")["fixed_us"].ours.mean == pytest.approx(20)


def test_fit_of_one_density_is_missing(tmp_path):
    raw = {**CONFIG, "operators": {"shapes": {"1B": [1536, 3840]}, "densities": [1, 0.1]}}
    synthetic = Synthetic(tmp_path, raw).write()
    cells = cells_of(TABLES.build("table2_operators_fit", synthetic.results), "1B, step (2)")
    assert all(cell.ours is None and "fewer than two such densities" in cell.note for cell in cells.values())
