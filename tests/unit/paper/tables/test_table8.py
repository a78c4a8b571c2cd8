"""Table 8."""

from __future__ import annotations

import pytest
from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def test_table8_weights_corpora_of_one_data_set_by_tokens(synthetic):
    def merge(value):
        for entry in value["measurements"]:
            entry["corpora"]["dialogue"].update(sparsity=0.90, tokens=3000)
            entry["corpora"]["questions"].update(stands_for="ultrachat", sparsity=0.80, tokens=1000)

    synthetic.edit(synthetic.layout.sparsity("progressive", 1), merge)
    cells = row_of(TABLES.build("table8", synthetic.results), "ProSparse-7B").cells
    assert cells["ultrachat"].ours.mean == pytest.approx(87.5)
    assert cells["paq"].ours is None
    assert cells["paq"].published == "97.28"
