"""What a token reads, by arithmetic: checked against the model's own parameter count and the notes on the paper."""

from __future__ import annotations

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.acceleration import bounds, page
from prosparse.published.settings import settings
from prosparse.published.shapes import PREDICTOR_RANK as RANK
from prosparse.published.tables import published_table

# parameters of LLaMA2 as released (without norms: (2 x layers + 1) x d_model fewer)
RELEASED = {"7B": 6_738_415_616, "13B": 13_015_864_320}


def _setting(name):
    return next(setting for setting in settings() if setting.name == name)


@pytest.mark.parametrize("scale", RELEASED)
def test_weights_are_the_released_models(scale):
    shape = bounds.shapes()[scale]
    norms = (2 * shape.layers + 1) * shape.hidden_size
    embedding = shape.vocabulary_size * shape.hidden_size
    assert shape.dense_read + embedding + norms == RELEASED[scale]


def test_a_density_of_one_saves_nothing():
    for shape in bounds.shapes().values():
        assert shape.exact_read(1) == shape.dense_read
        assert shape.predicted_read(RANK, 1) == shape.dense_read + shape.predictors(RANK)
        assert shape.predicted_read(RANK, 0) == shape.read_without_ffn + shape.predictors(RANK)
        assert shape.predicted_read(RANK, 0.3, 0.1) == pytest.approx(
            shape.predicted_read(RANK, 0.3) - 0.2 * shape.projection
        )


@pytest.mark.parametrize(("row", "times"), [("ProSparse-7B*", 1.72), ("ProSparse-13B*", 1.83)])
def test_bounds_under_prediction(row, times):
    assert bounds.bound(_setting(row)) == pytest.approx(times, abs=0.005)


def test_bound_of_the_exact_way():
    row = _setting("ProSparse-7B")
    assert bounds.exact_bound(row) == pytest.approx(1.64, abs=0.005)
    shape = bounds.shapes()["7B"]  # and of its FFN alone
    assert shape.ffn / (shape.exact_read(row.density) - shape.read_without_ffn) == pytest.approx(2.47, abs=0.005)


def test_dense_rows_read_at_the_rate_of_a_cpus_memory():
    rates = [bounds.implied_bandwidth(_setting(f"Dense-{scale}")) for scale in bounds.shapes()]
    assert rates == [pytest.approx(48.5, abs=0.05), pytest.approx(49.35, abs=0.05)]


def test_what_came_from_elsewhere_is_the_excess_over_the_dense_rate():
    row = _setting("ProSparse-7B*")
    rates = bounds.implied_bandwidth(row), bounds.implied_bandwidth(_setting("Dense-7B"))
    assert bounds.share_from_elsewhere(row) == pytest.approx(1 - rates[1] / rates[0])
    # bytes and rates are all of the speedup
    assert bounds.bound(row) * rates[0] / rates[1] == pytest.approx(bounds.speedup(row))


def test_printed_speedups_are_ratios_of_the_printed_speeds():
    printed = [setting for setting in settings() if setting.printed.get("speedup_to_dense")]
    assert len(printed) == 6
    for setting in printed:
        assert bounds.speedup(setting) == pytest.approx(float(setting.printed["speedup_to_dense"]), abs=0.006)
    relu = bounds.speed(_setting("ReluLLaMA-7B"))
    for row in published_table("table2_early_baselines"):
        assert bounds.speed(_setting(row["setting"])) / relu == pytest.approx(
            float(row["speedup_to_relullama"]), abs=0.006
        )
    for row in published_table("powerinfer_elsewhere"):
        if row["tokens_per_s"]:
            assert float(row["tokens_per_s"]) / float(row["dense_tokens_per_s"]) == pytest.approx(
                float(row["speedup"]), abs=0.01
            )


def test_page_says_what_the_numbers_say(synthetic):
    text = page.write(synthetic.layout).read_text()
    for words in (
        "# Why sparsity alone does not explain 4.52×",
        "| 7B: d_model 4096, d_ff 11008, 32 layers | 4.29 | 8.66 | 0.26 | 13.21 | 0.99 | 3.67 | 48.5 |",
        "| ProSparse-7B\\* | 88.11 | 75.24 | 16.30 | 4.44 | 1.72 | 1.63 | 2.90 | 125 |",
        "4.44 = 1.72 (fewer bytes) × 2.58",
        "CPU and GPU 4.38; GPU only 1.58; CPU only 2.08",
        "at least 61% came from a faster memory",
        "(Synthetic llama-7b as ProSparse-7B), where the bytes allow 1.79×; the paper's 4.52× is 2.7 times as large",
        "Missing: PowerInfer: its binary is not built.",
        "Dense decoding of ProSparse-7B reaches less than half of its bound",
        "CPU (Imaginary CPU, 2 cores; 2 threads), bfloat16",
    ):
        assert words in text, words
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in tables)
    assert "nan" not in text


def test_a_token_that_exact_decoding_changes_is_told(synthetic):
    def change(value):
        value["models"][0]["same_tokens_as_dense"]["exact"] = False

    synthetic.edit(synthetic.layout.decoding("llama-7b"), change)
    assert "2 of 3 models generate the same tokens" in page.render(synthetic.results)


def test_needs_are_the_decoding_times(synthetic, nothing):
    files = page.needs(synthetic.experiment).files(synthetic.layout)
    assert [path.name for path in files.pop("decoding")] == ["decoding.json", "llama-7b.json"]
    assert not any(files.values())
    assert not any(page.needs(nothing.experiment).files(nothing.layout).values())


def test_without_times_the_arithmetic_stands_alone(nothing):
    text = page.render(nothing.results)
    assert "Missing: the experiment times no decoding." in text
    assert "48.5" in text


def test_without_predictors_the_exact_way_is_told(tmp_path):
    raw = {key: value for key, value in CONFIG.items() if key != "predictors"}
    decoding = {**raw["decoding"], "shapes": {}}
    text = page.render(Synthetic(tmp_path, {**raw, "decoding": decoding}).write().results)
    assert "Missing: decoding with predictors was not timed." in text
    same = "its tokens equal those of dense decoding."
    assert f"Exact decoding is 1.07× as fast as dense decoding, without any predictor; {same}" in text
