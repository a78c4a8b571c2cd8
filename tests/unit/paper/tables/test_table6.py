"""Table 6."""

from __future__ import annotations

import pytest
from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def test_table6_sets_our_stages_beside_the_published(synthetic):
    rows = [row for row in TABLES.build("table6", synthetic.results).rows if row.label.startswith("7B")]
    assert [row.cells["lambda"].published for row in rows] == ["0", "5e-3", "5e-2", "5e-2", "2e-1", "2e-1"]
    assert [row.cells["accumulated_steps"].ours.mean for row in rows] == [40, 60, 100, 120, 160, 180]
    assert rows[-1].cells["accumulated_tokens"].published == "34600000000"
    assert rows[-1].cells["sparsity"].ours.mean == pytest.approx(88.5, abs=1)


def test_an_untrained_stage_has_no_loss_and_no_sparsity(untrained):
    row = row_of(TABLES.build("table6", untrained.results), "7B, stage 0")
    assert [row.cells[key].ours.mean for key in ("lambda", "accumulated_steps", "accumulated_tokens")] == [0, 0, 0]
    for key in ("sparsity", "lm_loss"):
        assert row.cells[key].ours is None
        assert row.cells[key].note.startswith("missing: this stage does not train")
    assert untrained.results.ledger("base") == []
