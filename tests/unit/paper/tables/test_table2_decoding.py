"""Table 2, decoding speed in every engine, mode and precision."""

from __future__ import annotations

import json

import pytest
from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def raw(decoding, row, precision):
    return next(each for each in decoding["models"] if (each["row"], each["precision"]) == (row, precision))


def test_decoding_has_a_row_for_every_model_and_precision(synthetic, decoding):
    table = TABLES.build("table2_decoding", synthetic.results)
    ours = [row.label for row in table.rows if row.label.startswith("ProSparse-7B, ")]
    assert ours == ["ProSparse-7B, bfloat16", "ProSparse-7B, q4_0"]
    for precision in ("bfloat16", "q4_0"):
        found = raw(decoding, "ProSparse-7B", precision)
        engine, modes = found["engines"]["llama.cpp"]["tokens_per_second"]["median"], found["modes"]
        speeds = {mode: arm["tokens_per_second"]["median"] for mode, arm in modes.items()}
        assert ("torch" in speeds) == (precision == "bfloat16")
        expected = {**speeds, "llama.cpp": engine}
        for mode in ("exact", "predicted"):
            expected[f"{mode}_over_dense"] = modes[mode]["times_faster_than_dense"]["median"]
            expected[f"{mode}_over_llama.cpp"] = speeds[mode] / engine
        quality = next(
            each
            for each in json.loads(synthetic.layout.precision().read_text())["models"]
            if (each["pair"], each["precision"]) == (found["pair"], precision)
        )
        expected |= {"held_out_loss": quality["loss"], "average_sparsity": 100 * quality["sparsity"]}
        cells = row_of(table, f"ProSparse-7B, {precision}").cells
        assert {key: cell.ours.mean for key, cell in cells.items()} == pytest.approx(expected)
    assert not {"exact", "predicted"} & row_of(table, "Dense-7B, q4_0").cells.keys()  # SiLU has no zeros


def test_loss_is_measured_where_a_format_changes_it(tmp_path, synthetic):
    assert TABLES.needs("table2_decoding", synthetic.experiment).precision
    raw = {**CONFIG, "decoding": {**CONFIG["decoding"], "precisions": ["bfloat16"]}}
    plain = Synthetic(tmp_path, raw).write()
    assert not TABLES.needs("table2_decoding", plain.experiment).precision
    assert "held_out_loss" not in [column.key for column in TABLES.build("table2_decoding", plain.results).columns]


def test_a_bound_is_the_bytes_over_the_bandwidth(synthetic, decoding):
    table = TABLES.build("table2_decoding_limit", synthetic.results)
    assert [row.label for row in table.rows if row.label.startswith("ProSparse-7B*, bfloat16: ")] == [
        f"ProSparse-7B*, bfloat16: {way}"
        for way in (
            "transformers, dense", "ours, dense", "ours, exact", "ours, predicted", "llama.cpp, dense"
        )
    ]  # fmt: skip
    modes = raw(decoding, "ProSparse-7B*", "q4_0")["modes"]
    cells = row_of(table, "ProSparse-7B*, q4_0: ours, exact").cells
    exact = modes["exact"]
    expected = {
        "milliseconds": exact["milliseconds_per_token"]["median"],
        "first_token": exact["first_token_milliseconds"]["median"],
        "megabytes": exact["bytes"]["all"] / 1e6,
        "tokens_per_second": exact["tokens_per_second"]["median"],
        "bound_tokens_per_second": 20e9 / exact["bytes"]["all"],
        "share_of_bound": 100 * exact["share_of_bound"]["median"],
        "overhead": exact["overhead_milliseconds"],
        "same_tokens": 100,
    }
    assert {key: cell.ours.mean for key, cell in cells.items()} == pytest.approx(expected)
    assert row_of(table, "ProSparse-7B*, q4_0: ours, predicted").cells["same_tokens"].ours.mean == pytest.approx(93)
    assert "megabytes" not in row_of(table, "ProSparse-7B*, q4_0: llama.cpp, dense").cells


def test_an_engine_that_nobody_asked_for_has_no_column(synthetic):
    table = TABLES.build("table2_decoding", synthetic.results)
    assert "powerinfer" not in [column.key for column in table.columns]
    assert "Missing: PowerInfer: the experiment does not ask for it." in table.notes


def test_engines_that_are_missing_say_why(powerinfer_wanted):
    table = TABLES.build("table2_decoding", powerinfer_wanted.results)
    cell = row_of(table, "Synthetic llama-7b as ProSparse-7B, q4_0").cells["powerinfer"]
    assert cell.ours is None
    assert cell.note == "missing: its binary is not built"
    assert "Missing: PowerInfer: its binary is not built." in table.notes


def test_another_precision_of_an_engine_is_told(powerinfer_wanted):
    def build(value):
        for model in value["models"]:
            model["engines"]["powerinfer"] = {**model["engines"]["llama.cpp"], "precision": "float16"}

    powerinfer_wanted.edit(powerinfer_wanted.layout.decoding("llama-7b"), build)
    table = TABLES.build("table2_decoding", powerinfer_wanted.results)
    note = row_of(table, "Synthetic llama-7b as ProSparse-7B, bfloat16").cells["powerinfer"].note
    assert "its weights are in float16" in note


def test_a_mode_that_a_precision_cannot_have_says_why(synthetic):
    def refuse(value):
        model = raw(value, "ProSparse-7B", "q4_0")
        model["missing_modes"] = {"predicted": "rows of 344 values"}
        del model["modes"]["predicted"]

    synthetic.edit(synthetic.layout.decoding(), refuse)
    table = TABLES.build("table2_decoding", synthetic.results)
    cells = row_of(table, "ProSparse-7B, q4_0").cells
    assert cells["predicted"].note == "missing: rows of 344 values"
    assert cells["exact"].ours is not None
    assert "Missing: ProSparse-7B, q4_0, predicted: rows of 344 values." in table.notes


def test_a_precision_that_a_model_cannot_have_says_why(synthetic):
    def refuse(value):
        model = raw(value, "ProSparse-7B", "q4_0")
        for key in ("sparsity", "bandwidth", "weight_bytes", "same_tokens_as_dense"):
            del model[key]
        model |= {"missing": "rows of 144 values", "modes": {}, "engines": {}}

    synthetic.edit(synthetic.layout.decoding(), refuse)
    table = TABLES.build("table2_decoding", synthetic.results)
    cells = row_of(table, "ProSparse-7B, q4_0").cells
    cells = {key: cell for key, cell in cells.items() if key not in ("held_out_loss", "average_sparsity")}
    assert {key: cell.note for key, cell in cells.items()} == dict.fromkeys(
        ("dense", "exact", "predicted"), "missing: rows of 144 values"
    )
    assert "Missing: ProSparse-7B, q4_0: rows of 144 values." in table.notes
    assert row_of(table, "ProSparse-7B, bfloat16").cells["exact"].ours is not None
    limits = [row.label for row in TABLES.build("table2_decoding_limit", synthetic.results).rows]
    assert not [label for label in limits if label.startswith("ProSparse-7B, q4_0")]
