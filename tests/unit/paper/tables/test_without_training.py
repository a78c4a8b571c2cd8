"""Sparsity without training next to the trained models."""

from __future__ import annotations

import csv
import io
import math

import pytest
from helpers.synthetic_results import THRESHOLD_COSTS

from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_csv, to_markdown


def test_the_original_then_every_setting_then_the_trained_models(synthetic):
    table = TABLES.build("without_training", synthetic.results)
    rows = {row.label: row for row in table.rows}
    labels = list(rows)
    assert labels[:4] == ["tiny, original", "CATS, 50%", "CATS, 90%", "CATS, perplexity +1%"]
    assert labels[10:12] == ["tiny, Vanilla ReLU", "tiny, Vanilla ReLU, FATReLU 0.03"]
    assert len(table.rows) == 1 + 3 * 3 + 9  # the second panel has no targets
    assert rows["tiny, original"].cells.keys() == {"average_sparsity", "held_out_loss"}
    found = rows["TEAL, 50%"].cells
    assert found["average_sparsity"].ours.mean == pytest.approx(49)
    assert found["input_sparsity"].ours.mean == pytest.approx(50)
    cost = THRESHOLD_COSTS["teal"] * 0.5**3
    assert found["loss_over_original"].ours.mean == pytest.approx(cost)
    assert found["loss_over_original"].ours.standard_error == pytest.approx(0, abs=1e-6)  # every sequence pays the same
    assert found["perplexity_over_original"].ours.mean == pytest.approx(100 * (math.exp(cost) - 1))
    vanilla = rows["tiny, Vanilla ReLU"].cells
    assert vanilla["skipped_weights"].ours.mean == pytest.approx(2 / 3 * vanilla["average_sparsity"].ours.mean)
    assert vanilla["loss_over_original"].ours.mean == pytest.approx(3.48 - 3.50)
    assert "| **CATS, 50%** tiny (stands for LLaMA2-7B) | ours | 49.00 | 0.00 | 32.67 |" in to_markdown(table)
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert {line["pair"] for line in lines if line["row"] == "CETT, 90%"} == {"base@silu, cett"}
