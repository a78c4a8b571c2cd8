"""Table 2's left half: our prediction and decoding speed land beside the paper's, and nothing is filled in."""

from __future__ import annotations

import csv
import io
import json

import numpy
import pytest
from helpers.synthetic_results import CONFIG, USED, Synthetic

from prosparse.paper.figures import registry as figures
from prosparse.paper.results import accelerated
from prosparse.paper.results.accelerated import KINDS
from prosparse.paper.results.decoding import MODES
from prosparse.paper.results.prediction import Point, interpolated, read_prediction
from prosparse.paper.results.reader import MissingResult
from prosparse.paper.results.value import Value
from prosparse.paper.tables import registry as tables
from prosparse.paper.tables.text import to_csv, to_markdown
from prosparse.published.tables import published_table


def _row(table, label, pair=None):
    return next(row for row in table.rows if row.label == label and pair in (None, row.pair))


@pytest.fixture
def decoding(synthetic):
    return json.loads(synthetic.results.decoding_file().read_text())


def _without(tmp_path, *sections, **changes):
    raw = {key: value for key, value in CONFIG.items() if key not in sections}
    return Synthetic(tmp_path, {**raw, **changes}).write()


# ------------------------------------------------------------------------------- what is asked


def test_pairs_are_the_rows_of_table_2_with_the_dense_ones(synthetic):
    assert accelerated.pairs(synthetic.experiment) == {
        "Dense-7B": "base@silu",
        "ProSparse-7B*": "progressive@relu",
        "ProSparse-7B": "progressive@fatrelu-0.01",
        "Vanilla ReLU-7B": "vanilla@relu",
        "Fixed L1-7B": "constant-0.1@relu",
    }
    predicted = accelerated.predicted_pairs(synthetic.experiment)
    assert list(predicted) == ["ProSparse-7B*", "ProSparse-7B", "Vanilla ReLU-7B", "Fixed L1-7B"]


def test_needs_follow_the_sections(synthetic, nothing):
    needs = tables.needs("table2_predictors", synthetic.experiment)
    assert needs.prediction == {
        ("progressive", "relu"), ("progressive", "fatrelu-0.01"), ("vanilla", "relu"), ("constant-0.1", "relu")
    }  # fmt: skip
    assert needs.predicted_benchmarks == needs.benchmarks == {("progressive", "fatrelu-0.01")}
    needs = tables.needs("table2_decoding", synthetic.experiment)
    assert (needs.decoding, needs.decoding_shapes, needs.prediction) == (True, {"llama-7b"}, set())
    for name in ("table2", "table2_decoding", "table2_predictors"):
        assert not any(nothing.results.files(tables.needs(name, nothing.experiment)).values())


# ------------------------------------------------------------------------------------- table 2


def test_table2_has_every_number_of_the_paper(synthetic):
    table = tables.build("table2", synthetic.results)
    for source in ("table2_acceleration", "table2_early_baselines"):
        for printed in published_table(source):
            row = _row(table, printed["setting"])
            for key, text in printed.items():
                if key in ("setting", "speedup_to_relullama"):
                    continue
                shown = row.cells[key].published if key in row.cells else ""
                assert shown == text, (printed["setting"], key)
    assert any("Vanilla ReLU-7B 1.06, Fixed L1-7B 1.73" in note for note in table.notes)


def test_table2_puts_ours_beside_the_papers(synthetic, decoding):
    cells = _row(tables.build("table2", synthetic.results), "ProSparse-7B*").cells
    raw = json.loads(synthetic.results.prediction_file("progressive", "relu", 1).read_text())
    model = next(model for model in decoding["models"] if model["row"] == "ProSparse-7B*")
    expected = {
        "average_sparsity": 88.6,
        "activation_recall": 100 * raw["kinds"]["nonzero"]["activation_recall"],
        "predicted_sparsity": 88.6 * USED["nonzero"],
        "inference_speed_tokens_per_s": model["modes"]["predicted"]["tokens_per_second"]["median"],
        "speedup_to_dense": model["modes"]["predicted"]["times_faster_than_dense"]["median"],
        "exact_tokens_per_s": model["modes"]["exact"]["tokens_per_second"]["median"],
        "exact_speedup_to_dense": model["modes"]["exact"]["times_faster_than_dense"]["median"],
    }
    for key, value in expected.items():
        assert cells[key].ours.mean == pytest.approx(value), key
    operators = json.loads(synthetic.results.operators_file.read_text())
    case = next(case for case in operators["cases"] if case.get("row") == "ProSparse-7B*")
    assert cells["step2_time_us"].ours.mean == case["cold"]["sparse_up"]["microseconds"]["median"]
    assert cells["step3_time_us"].ours.mean == case["cold"]["sparse_down"]["microseconds"]["median"]


def test_table2_dense_row_is_our_dense_decoding(synthetic, decoding):
    cells = _row(tables.build("table2", synthetic.results), "Dense-7B").cells
    dense = decoding["models"][0]["modes"]["dense"]
    assert cells["inference_speed_tokens_per_s"].ours.mean == dense["tokens_per_second"]["median"]
    assert cells["speedup_to_dense"].ours.mean == 1
    assert cells["step2_speedup"].ours.mean == 1
    assert not {"average_sparsity", "activation_recall", "exact_tokens_per_s"} & set(cells)


def test_table2_labels_synthetic_models(synthetic):
    table = tables.build("table2", synthetic.results)
    row = _row(table, "Synthetic llama-7b as ProSparse-7B")
    assert not row.is_published
    assert row.cells["average_sparsity"].ours.mean == pytest.approx(89.32)
    assert row.cells["step2_speedup"].ours.mean == pytest.approx(3020 / (20 + 3000 * 1176 / 11008))
    assert row.pair == "d_model 4096, d_ff 11008, 32 layers"
    assert any("It serves for timing only" in note for note in table.notes)


def test_missing_parts_say_why(tmp_path, synthetic):
    table = tables.build("table2", _without(tmp_path / "a", "predictors").results)
    cells = _row(table, "ProSparse-7B").cells
    assert cells["activation_recall"].ours is None
    assert cells["activation_recall"].published == "92.34"
    assert cells["inference_speed_tokens_per_s"].ours is None
    assert cells["exact_tokens_per_s"].ours is not None
    assert any("the experiment trains no predictors" in note for note in table.notes)
    assert any(note == "Missing: ProSparse-7B*; ProSparse-7B; Vanilla ReLU-7B; Fixed L1-7B: not decoded in mode "
               "predicted." for note in table.notes)  # fmt: skip

    table = tables.build("table2", _without(tmp_path / "b", "decoding", "operators").results)
    cells = _row(table, "ProSparse-7B").cells
    assert cells["activation_recall"].ours is not None
    assert cells["inference_speed_tokens_per_s"].ours is None
    assert "Missing: tokens/s and speedup to dense: the experiment times no decoding." in table.notes
    assert "Missing: steps (2) and (3): the experiment times no operators." in table.notes

    synthetic.edit(synthetic.results.decoding_file(), lambda value: value["models"].pop())
    with pytest.raises(MissingResult, match=r"decoding\.json: no decoding times of the row Fixed L1-7B"):
        tables.build("table2", synthetic.results)


def test_a_kind_that_was_not_measured_is_named(synthetic):
    path = synthetic.results.prediction_file("progressive", "relu", 1)
    synthetic.edit(path, lambda value: value["kinds"].pop("svd"))
    with pytest.raises(MissingResult, match=r"relu\.json: no predictor of kind svd; it has nonzero, top, marginal"):
        tables.build("table2_predictors", synthetic.results)


# ------------------------------------------------------------------------------------ decoding


def test_decoding_has_a_row_for_every_way(synthetic, decoding):
    table = tables.build("table2_decoding", synthetic.results)
    ways = [row.label for row in table.rows if row.label.startswith("ProSparse-7B*: ")]
    assert [label.partition(": ")[2] for label in ways] == [
        "transformers, dense", "ours, dense", "ours, exact", "ours, predicted", "llama.cpp, dense"
    ]  # fmt: skip
    raw = next(model for model in decoding["models"] if model["row"] == "ProSparse-7B*")["modes"]
    cells = _row(table, "ProSparse-7B*: ours, exact").cells
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
    assert _row(table, "ProSparse-7B*: ours, predicted").cells["same_tokens"].ours.mean == pytest.approx(93)
    engine = _row(table, "ProSparse-7B*: llama.cpp, dense").cells
    assert engine["over_dense"].ours.mean == pytest.approx(0.9)
    assert "megabytes" not in engine


def test_engines_that_are_missing_say_why(synthetic):
    table = tables.build("table2_decoding", synthetic.results)
    row = _row(table, "Synthetic llama-7b as ProSparse-7B: PowerInfer, predicted")
    assert all(cell.ours is None and cell.note == "missing: its binary is not built" for cell in row.cells.values())
    assert "Missing: PowerInfer: its binary is not built." in table.notes
    assert "Missing: PowerInfer: the experiment does not ask for it." in table.notes


# ---------------------------------------------------------------------------------- predictors


def test_recall_of_frequency_alone_is_interpolated_at_the_same_predicted_sparsity(synthetic):
    table = tables.build("table2_predictors", synthetic.results)
    cells = _row(table, "ProSparse-7B*", "progressive@relu, non-zero labels").cells
    raw = json.loads(synthetic.results.prediction_file("progressive", "relu", 1).read_text())["kinds"]
    x, y = ([point[key] for point in raw["marginal"]["sweep"]] for key in ("predicted_sparsity", "activation_recall"))
    expected = 100 * numpy.interp(raw["nonzero"]["predicted_sparsity"], [0, *x, 1], [1, *y, 0])
    assert cells["marginal_recall"].ours.mean == pytest.approx(expected)
    assert cells["marginal_recall"].ours.mean < cells["activation_recall"].ours.mean
    frequency = _row(table, "ProSparse-7B*", "progressive@relu, frequency").cells
    assert "marginal_recall" not in frequency
    assert frequency["activation_recall"].published == ""
    assert cells["activation_recall"].published == "93.46"


def test_interpolation_ends_where_every_neuron_and_where_none_is_active():
    points = [Point(0.5, 90.0, 60.0), Point(0.2, 98.0, 40.0)]  # in any order
    assert interpolated(points, 0) == 100
    assert interpolated(points, 20) == pytest.approx(99)
    assert interpolated(points, 50) == pytest.approx(94)
    assert interpolated(points, 60) == 90
    assert interpolated(points, 100) == 0
    with pytest.raises(ValueError, match="not between"):
        interpolated(points, 101)


def test_seeds_are_interpolated_one_by_one(several_seeds):
    found = read_prediction(several_seeds.results, "progressive@relu")
    at = found.kinds["nonzero"].predicted_sparsity
    assert len(at.seeds) == 3
    each = [interpolated(sweep, share) for sweep, share in zip(found.kinds["marginal"].sweep, at.seeds, strict=True)]
    assert found.kinds["marginal"].recall_at(at) == Value(tuple(each))


def test_quality_under_prediction(synthetic):
    path = synthetic.results.predicted_benchmarks_file("progressive", "fatrelu-0.01", 1)

    def worse(value):
        for row in value["benchmarks"].values():
            row["score"] -= 0.01

    synthetic.edit(path, worse)
    table = tables.build("table2_predictors", synthetic.results)
    cells = _row(table, "ProSparse-7B", "progressive@fatrelu-0.01, non-zero labels").cells
    assert cells["performance"].ours.mean - cells["predicted_performance"].ours.mean == pytest.approx(1)
    assert cells["performance"].mark == "†"  # AGI Eval has no rows
    assert cells["predicted_loss"].ours.mean > cells["loss"].ours.mean


def test_a_kind_that_predicts_nothing_active_has_no_precision(synthetic):
    path = synthetic.results.prediction_file("progressive", "relu", 1)
    synthetic.edit(path, lambda value: value["kinds"]["top"].update(precision=None))
    table = tables.build("table2_predictors", synthetic.results)
    assert _row(table, "ProSparse-7B*", "progressive@relu, top labels").cells["precision"].ours is None
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert any(line["note"] == "missing: nothing is predicted active" for line in lines)
    assert "missing" in to_markdown(table)


# ------------------------------------------------------------------------------------- figures


def test_figure_of_predictors_draws_every_kind_and_the_papers_point(synthetic):
    _, data = figures.build("figure_predictors", synthetic.results)
    rows = [row for row in data["data"] if row["setting"] == "ProSparse-7B"]
    lines = {row["series"] for row in rows if row["kind"] == "line"}
    assert lines == set(KINDS.values())
    marks = {row["series"]: (row["predicted_sparsity"], row["recall"]) for row in rows if row["kind"] == "mark"}
    assert marks["the paper's predictor"] == (78.75, 92.34)
    assert marks["a perfect predictor"] == (pytest.approx(89.8), 100)


def test_figure_of_decoding_adds_up_to_the_measured_time(synthetic, decoding):
    _, data = figures.build("figure_decoding", synthetic.results)
    modes = next(model for model in decoding["models"] if model["row"] == "ProSparse-7B")["modes"]
    for mode, way in MODES.items():
        parts = [row for row in data["data"] if (row["model"], row["way"]) == ("ProSparse-7B", way)]
        total = sum(row["milliseconds"] for row in parts)
        assert total == pytest.approx(modes[mode]["milliseconds_per_token"]["median"])
        attention = next(row["milliseconds"] for row in parts if row["part"] == "attention")
        assert attention == pytest.approx(modes[mode]["bytes"]["attention"] / 20e6)  # ms at 20 GB/s
    assert data["data"][0]["model"].startswith("Synthetic llama-7b")  # the paper's shapes first
