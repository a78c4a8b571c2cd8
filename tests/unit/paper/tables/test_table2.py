"""Table 2: our prediction, decoding and operators land beside the paper's."""

from __future__ import annotations

import json

import pytest
from helpers.synthetic_results import CONFIG, USED, Synthetic
from helpers.tables import row_of

from prosparse.paper.results.reader import MissingResult
from prosparse.paper.tables.registry import TABLES
from prosparse.published.tables import published_table


def test_table2_has_every_number_of_the_paper(synthetic):
    table = TABLES.build("table2", synthetic.results)
    for source in ("table2_acceleration", "table2_early_baselines"):
        for printed in published_table(source):
            row = row_of(table, printed["setting"])
            for key, text in printed.items():
                if key in ("setting", "speedup_to_relullama"):
                    continue
                shown = row.cells[key].published if key in row.cells else ""
                assert shown == text, (printed["setting"], key)
    assert any("Vanilla ReLU-7B 1.06, Fixed L1-7B 1.73" in note for note in table.notes)


def test_table2_puts_ours_beside_the_papers(synthetic, decoding):
    cells = row_of(TABLES.build("table2", synthetic.results), "ProSparse-7B*").cells
    raw = json.loads(synthetic.layout.prediction("progressive", "relu", 1).read_text())
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
    operators = json.loads(synthetic.layout.trained_operators().read_text())
    case = next(case for case in operators["cases"] if case.get("row") == "ProSparse-7B*")
    assert cells["step2_time_us"].ours.mean == case["cold"]["sparse_up"]["microseconds"]["median"]
    assert cells["step3_time_us"].ours.mean == case["cold"]["sparse_down"]["microseconds"]["median"]


def test_table2_dense_row_is_our_dense_decoding(synthetic, decoding):
    cells = row_of(TABLES.build("table2", synthetic.results), "Dense-7B").cells
    dense = decoding["models"][0]["modes"]["dense"]
    assert cells["inference_speed_tokens_per_s"].ours.mean == dense["tokens_per_second"]["median"]
    assert cells["speedup_to_dense"].ours.mean == 1
    assert cells["step2_speedup"].ours.mean == 1
    assert not {"average_sparsity", "activation_recall", "exact_tokens_per_s"} & set(cells)


def test_table2_labels_synthetic_models(synthetic):
    table = TABLES.build("table2", synthetic.results)
    row = row_of(table, "Synthetic llama-7b as ProSparse-7B")
    assert not row.is_published
    assert row.cells["average_sparsity"].ours.mean == pytest.approx(89.32)
    assert row.cells["step2_speedup"].ours.mean == pytest.approx(3020 / (20 + 3000 * 1176 / 11008))
    assert row.pair == "d_model 4096, d_ff 11008, 32 layers"
    assert any("It is for timing only" in note for note in table.notes)


def test_missing_parts_say_why(tmp_path, synthetic):
    table = TABLES.build("table2", _without(tmp_path / "a", "predictors").results)
    cells = row_of(table, "ProSparse-7B").cells
    assert cells["activation_recall"].ours is None
    assert cells["activation_recall"].published == "92.34"
    assert cells["inference_speed_tokens_per_s"].ours is None
    assert cells["exact_tokens_per_s"].ours is not None
    assert any("the experiment trains no predictors" in note for note in table.notes)
    assert any(note == "Missing: ProSparse-7B*; ProSparse-7B; Vanilla ReLU-7B; Fixed L1-7B: not decoded in mode "
               "predicted." for note in table.notes)  # fmt: skip

    table = TABLES.build("table2", _without(tmp_path / "b", "decoding", "operators").results)
    cells = row_of(table, "ProSparse-7B").cells
    assert cells["activation_recall"].ours is not None
    assert cells["inference_speed_tokens_per_s"].ours is None
    assert "Missing: tokens/s and speedup to dense: the experiment times no decoding." in table.notes
    assert "Missing: steps (2) and (3): the experiment times no operators." in table.notes

    synthetic.edit(synthetic.layout.decoding(), lambda value: value["models"].pop())
    with pytest.raises(MissingResult, match=r"decoding\.json: no decoding times of the row Fixed L1-7B"):
        TABLES.build("table2", synthetic.results)


def _without(tmp_path, *sections, **changes):
    raw = {key: value for key, value in CONFIG.items() if key not in sections}
    return Synthetic(tmp_path, {**raw, **changes}).write()
