"""Table 2, decoding speed."""

from __future__ import annotations

import pytest
from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def test_decoding_has_a_row_for_every_way(synthetic, decoding):
    table = TABLES.build("table2_decoding", synthetic.results)
    ways = [row.label for row in table.rows if row.label.startswith("ProSparse-7B*: ")]
    assert [label.partition(": ")[2] for label in ways] == [
        "transformers, dense", "ours, dense", "ours, exact", "ours, predicted", "llama.cpp, dense"
    ]  # fmt: skip
    raw = next(model for model in decoding["models"] if model["row"] == "ProSparse-7B*")["modes"]
    cells = row_of(table, "ProSparse-7B*: ours, exact").cells
    exact = raw["exact"]
    expected = {
        "tokens_per_second": exact["tokens_per_second"]["median"],
        "milliseconds": exact["milliseconds_per_token"]["median"],
        "first_token": exact["first_token_milliseconds"]["median"],
        "over_dense": exact["times_faster_than_dense"]["median"],
        "over_torch": raw["torch"]["milliseconds_per_token"]["median"] / exact["milliseconds_per_token"]["median"],
        "megabytes": exact["bytes"]["all"] / 1e6,
        "bound_tokens_per_second": 1e3 / exact["bound_milliseconds"]["median"],
        "share_of_bound": 100 * exact["share_of_bound"]["median"],
        "overhead": exact["overhead_milliseconds"],
        "same_tokens": 100,
    }
    assert {key: cell.ours.mean for key, cell in cells.items()} == pytest.approx(expected)
    assert row_of(table, "ProSparse-7B*: ours, predicted").cells["same_tokens"].ours.mean == pytest.approx(93)
    engine = row_of(table, "ProSparse-7B*: llama.cpp, dense").cells
    assert engine["over_dense"].ours.mean == pytest.approx(0.9)
    assert "megabytes" not in engine


def test_engines_that_are_missing_say_why(synthetic):
    table = TABLES.build("table2_decoding", synthetic.results)
    row = row_of(table, "Synthetic llama-7b as ProSparse-7B: PowerInfer, predicted")
    assert all(cell.ours is None and cell.note == "missing: its binary is not built" for cell in row.cells.values())
    assert "Missing: PowerInfer: its binary is not built." in table.notes
    assert "Missing: PowerInfer: the experiment does not ask for it." in table.notes
