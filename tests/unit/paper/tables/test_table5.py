"""Table 5."""

from __future__ import annotations

from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def test_table5_shows_our_factor_and_equal_budgets(synthetic):
    table = TABLES.build("table5", synthetic.results)
    assert row_of(table, "7B, λ = 1e-1").cells["lambda"].ours.mean == 0.1
    assert row_of(table, "7B, ProSparse").cells["lambda"].published == ""
    budget = (2000 + 180) * 8 * 256
    assert {row.cells["accumulated_tokens"].ours.mean for row in table.rows if row.pair} == {budget}
