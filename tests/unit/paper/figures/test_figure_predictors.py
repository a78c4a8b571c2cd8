"""Recall over predicted sparsity."""

from __future__ import annotations

import pytest

from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.results.accelerated import KINDS


def test_figure_of_predictors_draws_every_kind_and_the_papers_point(synthetic):
    _, data = FIGURES.build("figure_predictors", synthetic.results)
    rows = [row for row in data["data"] if row["setting"] == "ProSparse-7B"]
    lines = {row["series"] for row in rows if row["kind"] == "line"}
    assert lines == set(KINDS.values())
    marks = {row["series"]: (row["predicted_sparsity"], row["recall"]) for row in rows if row["kind"] == "mark"}
    assert marks["the paper's predictor"] == (78.75, 92.34)
    assert marks["a perfect predictor"] == (pytest.approx(89.8), 100)
