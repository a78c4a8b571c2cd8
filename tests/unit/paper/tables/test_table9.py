"""Table 9."""

from __future__ import annotations

from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def test_table9_names_our_thresholds(synthetic):
    table = TABLES.build("table9", synthetic.results)
    assert row_of(table, "7B, t = 0").cells["threshold"].ours.mean == 0
    assert row_of(table, "7B, t = 0.03").cells["threshold"].ours.mean == 0.03
