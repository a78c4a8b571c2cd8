"""Table 2, activation predictors."""

from __future__ import annotations

import csv
import io
import json

import numpy
import pytest
from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import row_of

from prosparse.paper.results.reader import MissingResult
from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_csv, to_markdown


def test_a_kind_that_was_not_measured_is_named(synthetic):
    path = synthetic.layout.prediction("progressive", "relu", 1)
    synthetic.edit(path, lambda value: value["kinds"].pop("svd"))
    with pytest.raises(MissingResult, match=r"relu\.json: no predictor of kind svd; it has nonzero, top, marginal"):
        TABLES.build("table2_predictors", synthetic.results)


def test_recall_of_frequency_alone_is_interpolated_at_the_same_predicted_sparsity(synthetic):
    table = TABLES.build("table2_predictors", synthetic.results)
    cells = row_of(table, "ProSparse-7B*", "progressive@relu, non-zero labels").cells
    raw = json.loads(synthetic.layout.prediction("progressive", "relu", 1).read_text())["kinds"]
    x, y = ([point[key] for point in raw["marginal"]["sweep"]] for key in ("predicted_sparsity", "activation_recall"))
    expected = 100 * numpy.interp(raw["nonzero"]["predicted_sparsity"], [0, *x, 1], [1, *y, 0])
    assert cells["marginal_recall"].ours.mean == pytest.approx(expected)
    assert cells["marginal_recall"].ours.mean < cells["activation_recall"].ours.mean
    frequency = row_of(table, "ProSparse-7B*", "progressive@relu, frequency").cells
    assert "marginal_recall" not in frequency
    assert frequency["activation_recall"].published == ""
    assert cells["activation_recall"].published == "93.46"


def test_quality_under_prediction(synthetic):
    path = synthetic.layout.predicted_benchmarks("progressive", "fatrelu-0.01", 1)

    def worse(value):
        for row in value["benchmarks"].values():
            row["score"] -= 0.01

    synthetic.edit(path, worse)
    raw = {**CONFIG, "benchmarked": ["progressive@fatrelu-0.01"]}  # no original: all columns are averaged
    table = TABLES.build("table2_predictors", Synthetic(synthetic.directory, raw).results)
    cells = row_of(table, "ProSparse-7B", "progressive@fatrelu-0.01, non-zero labels").cells
    assert cells["performance"].ours.mean - cells["predicted_performance"].ours.mean == pytest.approx(1)
    assert cells["performance"].mark == "†"  # AGI Eval has no rows
    assert cells["predicted_loss"].ours.mean > cells["loss"].ours.mean


def test_a_kind_that_predicts_nothing_active_has_no_precision(synthetic):
    path = synthetic.layout.prediction("progressive", "relu", 1)
    synthetic.edit(path, lambda value: value["kinds"]["top"].update(precision=None))
    table = TABLES.build("table2_predictors", synthetic.results)
    assert row_of(table, "ProSparse-7B*", "progressive@relu, top labels").cells["precision"].ours is None
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert any(line["note"] == "missing: nothing is predicted active" for line in lines)
    assert "missing" in to_markdown(table)
