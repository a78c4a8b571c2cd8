"""Table 2, operator times."""

from __future__ import annotations

import csv
import io

import pytest
from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import cells_of

from prosparse.experiment import table2_rows
from prosparse.paper.figures import registry as figures
from prosparse.paper.results.reader import MissingResult
from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_csv, to_latex, to_markdown

NAMES = ("table2_operators", "table2_operators_fit", "table2_operators_gpu")


def test_without_the_section_nothing_is_timed_or_needed(nothing):
    assert table2_rows.densities(nothing.experiment) == {}
    assert table2_rows.trained(nothing.experiment) == {}
    for name in NAMES:
        assert not TABLES.needs(name, nothing.experiment).operators
        table = TABLES.build(name, nothing.results)
        assert "Missing: 7B, 13B: the experiment times no operators." in table.notes
        assert "paper (ours: missing)" in to_markdown(table)
    _, svg, _ = figures.write("figure_operators", nothing.layout)
    assert "the experiment times no operators" in svg.read_text()


def test_times_land_beside_the_papers(synthetic):
    cells = cells_of(TABLES.build("table2_operators", synthetic.results), "ProSparse-7B")
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
    cells = cells_of(TABLES.build("table2_operators", synthetic.results), "Dense-7B")
    assert cells["step2_time_us"].ours.mean == pytest.approx(3020)
    assert cells["step3_time_us"].ours.mean == pytest.approx(1.2 * 3020)
    assert cells["step3_time_us"].published == "82.92"
    assert cells["step2_speedup"].ours.mean == 1
    assert cells["average_sparsity"].ours.mean == 0


def test_notes_name_device_protocol_and_caches(synthetic, on_gpu):
    notes = "\n".join(TABLES.build("table2_operators", on_gpu.results).notes)
    assert "Ours: Imaginary GPU, bfloat16 weights." in notes
    assert "compare speedups" not in notes
    synthetic.edit(synthetic.layout.operators(), lambda value: value.update(device="cpu"))
    notes = "\n".join(TABLES.build("table2_operators", synthetic.results).notes)
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
    for name in NAMES:
        table = TABLES.build(name, synthetic.results)
        assert "Missing: 13B: the experiment times no operators of the 13B shape." in table.notes
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert all(line["ours"] == "" for line in lines if "13B" in line["row"])
        assert any(line["ours"] for line in lines if "7B" in line["row"])


def test_what_was_not_measured_is_named(synthetic):
    def drop(value):
        value["cases"] = [case for case in value["cases"] if case["density"] > 0.11 or case.get("scale") != "7B"]

    synthetic.edit(synthetic.layout.operators(), drop)
    with pytest.raises(MissingResult, match=r"operators\.json: no operator times of 7B at density 0\.1068"):
        TABLES.build("table2_operators", synthetic.results)
    synthetic.edit(synthetic.layout.operators(), lambda value: value.update(cases=[]))
    with pytest.raises(MissingResult, match=r"operators\.json: no operator times of 7B"):
        TABLES.build("table2_operators_fit", synthetic.results)
    synthetic.layout.operators().unlink()
    with pytest.raises(MissingResult, match=r"operators\.json: no such result"):
        TABLES.build("table2_operators_gpu", synthetic.results)


def test_renderings(synthetic):
    table = TABLES.build("table2_operators", synthetic.results)
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
