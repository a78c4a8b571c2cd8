"""Loss at equal sparsity, against the reference."""

from __future__ import annotations

import json

import pytest
from helpers.tables import cells_of

from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.tables.registry import TABLES


def drawn(synthetic):
    chart, data = FIGURES.build("figure_schedules", synthetic.results)
    return chart.to_dict(), {(row["method"], row["sparsity"]): row for row in data["data"]}


def test_the_figure_holds_the_tables_numbers(several_seeds):
    _, rows = drawn(several_seeds)
    table = TABLES.build("schedules", several_seeds.results)
    assert len(rows) == 3 * 3
    for (method, at), row in rows.items():
        cell = cells_of(table, method)[f"loss_{at:g}"]
        assert row["loss"] == (None if cell.ours is None else pytest.approx(cell.ours.mean))
        if row["difference"] is not None:
            assert row["lower"] < row["difference"] < row["upper"]
            text = cells_of(table, method)[f"difference_{at:g}"].text
            assert text == f"{row['difference']:+.3f} ({row['lower']:+.3f} to {row['upper']:+.3f})"


def test_one_panel_per_sparsity_with_every_method_in_the_configs_order(several_seeds):
    chart, _ = drawn(several_seeds)
    [comparison] = chart["vconcat"]
    assert [panel["title"]["text"] for panel in comparison["hconcat"]] == [
        "at 85.5% sparsity", "at 87% sparsity", "at 89.5% sparsity",
    ]  # fmt: skip
    text = json.dumps(chart, ensure_ascii=False)
    assert '"domain": ["Constant", "Progressive", "Resumed"]' in text
    assert "λ shape, tiny: loss minus that of Progressive" in text


def test_a_comparison_with_fewer_seeds_says_so(several_seeds):
    several_seeds.layout.sparsity("progressive", 2).unlink()
    assert "minus that of Progressive (2 of 3 seeds)" in json.dumps(drawn(several_seeds)[0], ensure_ascii=False)


def test_what_is_missing_is_drawn_as_missing(several_seeds):
    chart, rows = drawn(several_seeds)
    assert rows["Resumed", 89.5]["difference"] is None  # the reference does not reach it
    last = chart["vconcat"][0]["hconcat"][-1]
    [words] = [layer for layer in last["layer"] if layer["mark"]["type"] == "text"]
    assert [row["method"] for row in words["data"]["values"]] == ["Constant", "Progressive", "Resumed"]


def test_one_seed_without_a_known_deviation_has_no_bars(tmp_path, synthetic):
    experiment = synthetic.experiment.model_copy(update={"seed_deviation": None})
    results = type(synthetic.results)(type(synthetic.layout)(experiment, synthetic.directory))
    _, data = FIGURES.build("figure_schedules", results)
    constant = next(row for row in data["data"] if row["method"] == "Constant" and row["sparsity"] == 87)
    assert constant["difference"] is not None
    assert (constant["lower"], constant["upper"]) == (None, None)
