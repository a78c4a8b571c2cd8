"""Table 2, the operators' share of the memory bandwidth."""

from __future__ import annotations

import pytest
from helpers.tables import cells_of

from prosparse.paper.tables.registry import TABLES


def test_shares_of_the_limit(synthetic):
    table = TABLES.build("table2_operators_limit", synthetic.results)
    cells = cells_of(table, "7B, 10.7%")
    time, density = 20 + 3000 * 0.1068, 0.1068
    assert cells["step2"].ours.mean == pytest.approx(100 * 2800 * density / time, rel=1e-3)
    assert cells["step3"].ours.mean == pytest.approx(100 * 2800 * density / time / 1.2, rel=1e-3)
    assert "quartiles" in cells["step2"].note
