"""Table 2's right half: our operator times land beside the paper's, and the models say what the arithmetic says."""

from __future__ import annotations

import csv
import io
import json

import numpy
import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.figures import registry as figures
from prosparse.paper.figures.figure_operators import DENSE, GATHERED, OURS, ROWS, STREAM
from prosparse.paper.results import operators
from prosparse.paper.results.operator_lines import line, published_line
from prosparse.paper.results.reader import MissingResult
from prosparse.paper.tables import registry as tables
from prosparse.paper.tables.text import to_csv, to_latex, to_markdown
from prosparse.published.settings import settings
from prosparse.published.tables import published_table

TABLES = ("table2_operators", "table2_operators_fit", "table2_operators_gpu")


def _cells(table, label, pair=None):
    return next(row for row in table.rows if row.label == label and pair in (None, row.pair)).cells


@pytest.fixture
def on_gpu(synthetic):
    def edit(value):
        value["device"] = "Imaginary GPU"
        for case in value["cases"]:
            del case["cold"]["rows"]
            for arm in case["cold"].values():
                del arm["share_of_rows"]

    synthetic.edit(synthetic.results.operators_file, edit)
    return synthetic


# ------------------------------------------------------------------------------- what is timed


def test_densities_are_the_papers_and_those_of_the_config_that_are_not_near_one(synthetic):
    found = operators.densities(synthetic.experiment)
    assert found == {
        "7B": [1, 0.5, 0.3396, 0.3302, 0.1189, 0.1068, 0.0854, 0.05],  # the config's 0.107 is ProSparse-7B's
        "13B": [1, 0.5, 0.2844, 0.1203, 0.112, 0.107, 0.05],  # and 0.005 off ProSparse-13B's 0.112: kept apart
        "1B": [1, 0.5, 0.107, 0.05],
    }
    for table in ("table2_acceleration", "table2_early_baselines"):
        for row in published_table(table):
            if row["average_sparsity"]:
                scale = "13B" if "13B" in row["setting"] else "7B"
                assert 1 - float(row["average_sparsity"]) / 100 in map(pytest.approx, found[scale]), row["setting"]


def test_trained_rows_are_those_of_table_2_that_a_run_stands_for(synthetic):
    assert operators.trained(synthetic.experiment) == {
        "ProSparse-7B*": "progressive@relu",
        "ProSparse-7B": "progressive@fatrelu-0.01",
        "Vanilla ReLU-7B": "vanilla@relu",
        "Fixed L1-7B": "constant-0.1@relu",
    }


def test_without_the_section_nothing_is_timed_or_needed(nothing):
    assert operators.densities(nothing.experiment) == {}
    assert operators.trained(nothing.experiment) == {}
    for name in TABLES:
        assert not tables.needs(name, nothing.experiment).operators
        table = tables.build(name, nothing.results)
        assert "Missing: 7B, 13B: the experiment times no operators." in table.notes
        assert "paper (ours: missing)" in to_markdown(table)
    _, svg, _ = figures.write("figure_operators", nothing.experiment, nothing.directory)
    assert "the experiment times no operators" in svg.read_text()


def test_settings_are_the_papers_rows_by_scale():
    names = [setting.name for setting in settings()]
    assert names[:6] == ["Dense-7B", "ReluLLaMA-7B", "ProSparse-7B*", "ProSparse-7B", "Vanilla ReLU-7B", "Fixed L1-7B"]
    assert names[6:] == ["Dense-13B", "ReluLLaMA-13B", "ProSparse-13B*", "ProSparse-13B"]
    for setting in settings():  # the printed speedups are ratios of the printed times
        dense = next(s for s in settings() if s.is_dense and s.scale == setting.scale)
        for step in (2, 3):
            ratio = dense.microseconds(step) / setting.microseconds(step)
            assert setting.speedup(step) == pytest.approx(ratio, abs=0.006)


# ----------------------------------------------------------------------------------- the times


def test_times_land_beside_the_papers(synthetic):
    cells = _cells(tables.build("table2_operators", synthetic.results), "ProSparse-7B")
    density = 1176 / 11008  # whole neurons
    time = 20 + 3000 * density
    expected = {
        "average_sparsity": (100 * (1 - density), "89.32"),
        "step2_time_us": (time, "45.38"),
        "step2_speedup": (3020 / time, "2.00"),
        "step3_time_us": (1.2 * time, "55.05"),
        "step3_speedup": (3020 / time, "1.51"),
        "step2_over_torch": (4600 / time, ""),
        "step3_over_torch": (4600 / time, ""),
        "step2_warm_us": (time / 2, ""),
        "step3_warm_us": (1.2 * time / 2, ""),
    }
    assert set(cells) == set(expected)
    for key, (ours, papers) in expected.items():
        assert cells[key].ours.mean == pytest.approx(ours), key
        assert cells[key].published == papers, key
    assert cells["step2_time_us"].note == f"cold; quartiles {0.95 * time:.4g} to {1.05 * time:.4g}"


def test_dense_rows_are_our_own_dense_kernel(synthetic):
    cells = _cells(tables.build("table2_operators", synthetic.results), "Dense-7B")
    assert cells["step2_time_us"].ours.mean == pytest.approx(3020)
    assert cells["step3_time_us"].ours.mean == pytest.approx(1.2 * 3020)
    assert cells["step3_time_us"].published == "82.92"
    assert cells["step2_speedup"].ours.mean == 1
    assert cells["average_sparsity"].ours.mean == 0


def test_trained_models_have_rows_of_their_own(synthetic):
    table = tables.build("table2_operators", synthetic.results)
    row = next(row for row in table.rows if row.label == "Ours for ProSparse-7B, 128 × 352")
    assert (row.pair, row.is_published) == ("progressive@fatrelu-0.01", False)
    assert row.cells["average_sparsity"].ours.mean == pytest.approx(100 * (1 - 35 / 352))
    assert all(cell.published == "" for cell in row.cells.values())
    assert any("Rows named *Ours for*: stand-in: llama, 6 layers" in note for note in table.notes)


def test_notes_name_device_protocol_and_caches(synthetic, on_gpu):
    notes = "\n".join(tables.build("table2_operators", on_gpu.results).notes)
    assert "Ours: Imaginary GPU, bfloat16 weights." in notes
    assert "compare speedups" not in notes
    synthetic.edit(synthetic.results.operators_file, lambda value: value.update(device="cpu"))
    notes = "\n".join(tables.build("table2_operators", synthetic.results).notes)
    for words in (
        "CPU (Imaginary CPU, 2 cores; 2 threads), bfloat16",
        "medians of 40 rounds",
        "2.0 GiB",
        "(32 MiB)",
        "100 calls on the same weights",
        "random weights of these shapes (7B 4096 × 11008, 13B 5120 × 13824, 1B 1536 × 3840)",
        "compare speedups, not times",
    ):
        assert words in notes


def test_a_scale_that_is_not_timed_is_missing(tmp_path):
    raw = {**CONFIG, "operators": {**CONFIG["operators"], "shapes": {"7B": [4096, 11008]}}}
    synthetic = Synthetic(tmp_path, raw).write()
    for name in TABLES:
        table = tables.build(name, synthetic.results)
        assert "Missing: 13B: the experiment times no operators of the 13B shape." in table.notes
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert all(line["ours"] == "" for line in lines if "13B" in line["row"])
        assert any(line["ours"] for line in lines if "7B" in line["row"])


def test_what_was_not_measured_is_named(synthetic):
    def drop(value):
        value["cases"] = [case for case in value["cases"] if case["density"] > 0.11 or case.get("scale") != "7B"]

    synthetic.edit(synthetic.results.operators_file, drop)
    with pytest.raises(MissingResult, match=r"operators\.json: no operator times of 7B at density 0\.1068"):
        tables.build("table2_operators", synthetic.results)
    synthetic.edit(synthetic.results.operators_file, lambda value: value.update(cases=[]))
    with pytest.raises(MissingResult, match=r"operators\.json: no operator times of 7B"):
        tables.build("table2_operators_fit", synthetic.results)
    synthetic.results.operators_file.unlink()
    with pytest.raises(MissingResult, match=r"operators\.json: no such result"):
        tables.build("table2_operators_gpu", synthetic.results)


# ----------------------------------------------------------------------------------- the lines


def test_line_is_least_squares():
    densities, times = [0.05, 0.1, 0.2, 0.4, 0.5], [31.0, 44.0, 70.0, 120.0, 149.0]
    found = line(densities, times)
    (slope, fixed), covariance = numpy.polyfit(densities, times, 1, cov=True)
    assert (found.fixed, found.slope) == pytest.approx((fixed, slope))
    assert (found.slope_error, found.fixed_error) == pytest.approx(tuple(numpy.sqrt(numpy.diag(covariance))))
    assert line([0.1, 0.2], [3, 4]).fixed_error is None
    assert line([0.1, 0.1], [3, 4]) is None


@pytest.mark.parametrize(
    ("scale", "step", "fixed", "slope"), [("7B", 2, 34, 101), ("7B", 3, 51, 35), ("13B", 2, 44, 92), ("13B", 3, 61, 50)]
)
def test_published_line(synthetic, scale, step, fixed, slope):
    found = published_line(scale, step)
    assert (found.fixed, found.slope) == pytest.approx((fixed, slope), abs=0.6)
    for setting in settings():  # within the paper's own scatter, so the line describes its rows
        if setting.scale == scale and not setting.is_dense:
            assert found.at(setting.density) == pytest.approx(setting.microseconds(step), rel=0.05)
    cells = _cells(tables.build("table2_operators_fit", synthetic.results), f"{scale}, step ({step})", "cold")
    assert cells["fixed_us"].published.startswith(f"{found.fixed:.1f} ± ")
    assert cells["slope_us"].published.startswith(f"{found.slope:.1f} ± ")
    assert float(cells["fixed_share"].published) == pytest.approx(100 * found.fixed / found.at(0.1068), abs=0.05)


def test_fit_finds_what_the_times_were_made_with(synthetic):
    table = tables.build("table2_operators_fit", synthetic.results)
    cold, warm = (_cells(table, "7B, step (3)", protocol) for protocol in ("cold", "warm"))
    assert cold["fixed_us"].ours.mean == pytest.approx(24)
    assert cold["slope_us"].ours.mean == pytest.approx(3600)
    assert cold["fixed_share"].ours.mean == pytest.approx(100 * 24 / (24 + 3600 * 0.1068))
    assert cold["points"].ours.mean == 6  # of eight, two are denser than any of the paper's
    assert warm["slope_us"].ours.mean == pytest.approx(1800)
    assert warm["slope_us"].published == ""
    assert _cells(table, "1B, step (2)", "cold")["fixed_us"].ours.mean == pytest.approx(20)


def test_fit_of_one_density_is_missing(tmp_path):
    raw = {**CONFIG, "operators": {"shapes": {"1B": [1536, 3840]}, "densities": [1, 0.1]}}
    synthetic = Synthetic(tmp_path, raw).write()
    cells = _cells(tables.build("table2_operators_fit", synthetic.results), "1B, step (2)")
    assert all(cell.ours is None and "fewer than two such densities" in cell.note for cell in cells.values())


# -------------------------------------------------------------------------- the memory's limit


def test_shares_of_the_limit(synthetic):
    table = tables.build("table2_operators_limit", synthetic.results)
    cells = _cells(table, "7B, 10.7%")
    time, density = 20 + 3000 * 0.1068, 0.1068
    assert cells["step2"].ours.mean == pytest.approx(100 * 2800 * density / time, rel=1e-3)
    assert cells["step3"].ours.mean == pytest.approx(100 * 2800 * density / time / 1.2, rel=1e-3)
    assert "quartiles" in cells["step2"].note


# ----------------------------------------------------------------------------- what a GPU could


def test_least_time_is_bytes_over_bandwidth(synthetic):
    table = tables.build("table2_operators_gpu", synthetic.results)
    dense = _cells(table, "Dense-7B")
    size = 2 * (4096 * 11008 + 4096 + 11008)
    assert dense["step2_A100"].ours.mean == pytest.approx(1e6 * size / 2039e9)
    assert dense["step3_H100"].ours.mean == pytest.approx(1e6 * size / 3350e9)
    assert dense["step2_share"].ours.mean == pytest.approx(100 * 44.24 / 90.55, abs=0.1)
    sparse = _cells(table, "ProSparse-7B")["step3_A100"].ours.mean
    assert sparse == pytest.approx(1e6 * 2 * (4096 * 1176 + 4096 + 11008) / 2039e9)
    for setting in settings():  # a model of the least time is below every printed one
        for step in (2, 3):
            assert _cells(table, setting.name)[f"step{step}_A100"].ours.mean < setting.microseconds(step)


def test_gpu_times_are_missing_until_a_gpu_has_run(synthetic):
    table = tables.build("table2_operators_gpu", synthetic.results)
    cell = _cells(table, "ProSparse-13B")["step2_time_us"]
    assert (cell.ours, cell.published, cell.note) == (None, "53.78", "missing: ours have not been run on a GPU")
    assert any(note.startswith("Our operators have not been run on a GPU") for note in table.notes)


def test_gpu_times_are_shown_once_a_gpu_has_run(on_gpu):
    table = tables.build("table2_operators_gpu", on_gpu.results)
    assert _cells(table, "ProSparse-7B")["step2_time_us"].ours.mean == pytest.approx(20 + 3000 * 1176 / 11008)
    assert _cells(table, "Dense-7B")["step2_time_us"].ours.mean == pytest.approx(3020)
    assert not any("not been run" in note for note in table.notes)
    assert "Step (2) and step (3) of ours: Imaginary GPU, cold." in table.notes


# -------------------------------------------------------------------------------- as text, drawn


def test_renderings(synthetic):
    table = tables.build("table2_operators", synthetic.results)
    markdown = to_markdown(table)
    assert "| **ProSparse-7B\\*** | paper | 88.11 | 46.66 | 1.94 | 55.56 | 1.49 | – |" in markdown
    assert (
        "| `4096 × 11008, random patterns` | ours | 89.32 | 340.5 | 8.87 | 408.6 | 8.87 | 13.51 | 170.2 |" in markdown
    )
    assert "(µs)" in markdown
    latex = to_latex(table)
    assert r"Step (2) ($\mu$s)" in latex
    assert r"\label{tab:table2-operators}" in latex
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    line = next(x for x in lines if (x["row"], x["column"]) == ("ProSparse-7B", "step2_speedup"))
    assert float(line["ours"]) == pytest.approx(8.8695, abs=1e-3)
    assert (line["published"], line["pair"]) == ("2.00", "4096 × 11008, random patterns")
    assert "quartiles 8.426 to 9.313" in line["note"]


def test_figure_shows_every_way_at_every_density(synthetic):
    figures.write("figure_operators", synthetic.experiment, synthetic.directory)
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
        operators.densities(synthetic.experiment)["7B"], abs=1e-4
    )
    assert measured[0]["low"] < measured[0]["time"] < measured[0]["high"]


def test_figure_of_a_gpu_has_no_limit_of_rows(on_gpu):
    figures.write("figure_operators", on_gpu.experiment, on_gpu.directory)
    rows = json.loads((on_gpu.directory / "figures" / "figure_operators.json").read_text())["data"]
    assert ROWS not in {row["series"] for row in rows}
    assert STREAM in {row["series"] for row in rows}
