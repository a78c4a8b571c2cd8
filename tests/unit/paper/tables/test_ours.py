"""Our own comparisons."""

from __future__ import annotations

import pytest

from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_latex, to_markdown


def test_ours_alone_in_the_configs_order_without_a_line_of_the_paper(synthetic):
    table = TABLES.build("ours", synthetic.results)
    assert [(row.label, row.pair) for row in table.rows] == [
        ("Dense, same tokens", "dense@silu"),
        ("ProSparse, t = 0.03", "progressive@fatrelu-0.03"),
    ]
    dense, shifted = (row.cells for row in table.rows)
    assert dense["accumulated_tokens"].ours.mean == shifted["accumulated_tokens"].ours.mean == 2180 * 8 * 256
    assert (dense["lambda"].ours.mean, shifted["lambda"].ours.mean) == (0, 0.4)
    assert shifted["average_sparsity"].ours.mean == pytest.approx(100 * (0.885 + 1.2 * 0.03 + 0.001))
    assert dense["held_out_loss"].ours.mean == pytest.approx(3.472)
    assert dense["average_performance"].text == "–"  # the original is above chance in no column
    text = to_markdown(table)
    assert "paper (ours" not in text
    assert "| paper |" not in text
    assert "| **Dense, same tokens** tiny, dense, continued | ours | 4,464,640 | 0 |" in text
    assert "7B 34.60 B, 13B 134.22 B, 1B 473.02 B" in text
    assert "of the paper" not in to_latex(table).partition(r"\caption")[2].partition("}")[0]
