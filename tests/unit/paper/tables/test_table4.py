"""Table 4."""

from __future__ import annotations

from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def test_table4_counts_tokens_in_full(synthetic):
    cell = row_of(TABLES.build("table4", synthetic.results), "ProSparse, 34.60 B tokens").cells["accumulated_tokens"]
    assert cell.published == "34600000000"
    assert cell.ours.mean == 180 * 8 * 256
