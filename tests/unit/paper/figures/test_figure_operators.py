"""Operator time over density."""

from __future__ import annotations

import json

import pytest

from prosparse.experiment import table2_rows
from prosparse.paper.figures import registry as figures
from prosparse.paper.figures.figure_operators import DENSE, GATHERED, OURS, ROWS, STREAM


def test_figure_shows_every_way_at_every_density(synthetic):
    figures.write("figure_operators", synthetic.layout)
    rows = json.loads((synthetic.directory / "figures" / "figure_operators.json").read_text())["data"]
    panel = [row for row in rows if (row["scale"], row["step"]) == ("7B", 3)]

    def at_one(series):
        return next(r["time"] for r in panel if r["series"] == series and r["density"] == 1)

    assert at_one(OURS) == pytest.approx(1.2 * 3020)
    drawn = [row for row in panel if row["kind"] == "line"]
    assert max(row["density"] for row in drawn) == pytest.approx(0.3396)  # the paper's densest sparse row
    for row in drawn:
        assert row["time"] == pytest.approx(1.2 * (20 + 3000 * row["density"]), rel=1e-3)
    assert at_one(GATHERED) == pytest.approx(1.2 * 9150)
    assert at_one(DENSE) == pytest.approx(1.2 * 3020)
    assert at_one(STREAM) == pytest.approx(2800, rel=1e-3)  # and the vectors' bytes
    assert at_one(ROWS) == pytest.approx(2855, rel=1e-3)
    measured = [row for row in panel if row["series"] == OURS and row["kind"] == "measured"]
    assert [row["density"] for row in measured] == pytest.approx(
        table2_rows.densities(synthetic.experiment)["7B"], abs=1e-4
    )
    assert measured[0]["low"] < measured[0]["time"] < measured[0]["high"]


def test_figure_of_a_gpu_has_no_limit_of_rows(on_gpu):
    figures.write("figure_operators", on_gpu.layout)
    rows = json.loads((on_gpu.directory / "figures" / "figure_operators.json").read_text())["data"]
    assert ROWS not in {row["series"] for row in rows}
    assert STREAM in {row["series"] for row in rows}
