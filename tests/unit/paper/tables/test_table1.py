"""Table 1: ours lands beside the paper's, and nothing is filled in."""

from __future__ import annotations

import copy
import math

import pytest
from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_markdown


def test_table1_puts_ours_beside_the_papers(synthetic):
    table = TABLES.build("table1", synthetic.results)
    cells = row_of(table, "ProSparse-7B").cells
    assert cells["average_sparsity"].published == "89.32"
    assert cells["average_sparsity"].ours.mean == pytest.approx(100 * (0.885 + 0.012 + 0.001))
    assert cells["commonsense_reasoning"].ours.standard_error == pytest.approx(4 / math.sqrt(5))
    assert cells["commonsense_reasoning"].mark == "°"  # 3 points above chance, with a standard error of 1.8
    assert cells["average_performance"].text == "–"
    assert cells["agi_eval"].ours is None
    assert "no package holds its rows" in cells["agi_eval"].note
    assert any("AGI Eval" in note and "no package" in note for note in table.notes)
    assert any("SIQA is a stand-in" in note for note in table.notes)
    assert any("a stand-in: llama, 6 layers" in note for note in table.notes)


def test_a_row_without_a_run_is_missing_and_never_filled(synthetic):
    table = TABLES.build("table1", synthetic.results)
    for label, reason in (("ReluLLaMA-7B", "released checkpoint"), ("MiniCPM-1B", "no run of this experiment")):
        row = row_of(table, label)
        assert row.pair is None
        assert all(cell.ours is None and reason in cell.note for cell in row.cells.values())
    assert "| **MiniCPM-1B** | paper (ours: missing) | – | – | 36.85 |" in to_markdown(table)


def test_chance_level_row(synthetic):
    cells = row_of(TABLES.build("table3", synthetic.results), "Chance level").cells
    assert cells["piqa"].ours.mean == 50
    assert cells["humaneval"].ours.mean == 0
    group = row_of(TABLES.build("table1", synthetic.results), "Chance level").cells["commonsense_reasoning"]
    assert group.ours.mean == pytest.approx(100 * (0.5 + 1 / 3 + 0.25 + 0.5 + 0.5) / 5)


def test_without_benchmarks_the_columns_are_missing_and_nothing_is_needed(tmp_path):
    raw = {**CONFIG, "benchmarks": {"rows": "packages", "tasks": []}}
    synthetic = Synthetic(tmp_path, raw).write()
    assert TABLES.needs("table1", synthetic.experiment).benchmarks == set()
    cells = row_of(TABLES.build("table1", synthetic.results), "ProSparse-7B").cells
    assert cells["average_performance"].ours is None
    assert cells["held_out_loss"].ours is not None
    assert "missing" in to_markdown(TABLES.build("table1", synthetic.results))
    assert set(synthetic.results.benchmarks("base", "silu").missing.values()) == {"this experiment runs no benchmark"}


def test_pairs_that_answer_no_benchmark_keep_sparsity_and_loss(synthetic):
    raw = copy.deepcopy(CONFIG) | {"benchmarked": ["progressive@fatrelu-0.01"]}
    chosen = Synthetic(synthetic.directory, raw)
    needs = TABLES.needs("table9", chosen.experiment)
    assert needs.benchmarks == {("progressive", "fatrelu-0.01")}
    assert needs.sparsity == TABLES.needs("table9", synthetic.experiment).sparsity
    rows = {row.label: row.cells for row in TABLES.build("table9", chosen.results).rows}
    assert rows["7B, t = 0.01"]["average_performance"].ours is not None
    assert rows["7B, t = 0.03"]["average_performance"].ours is None
    notes = TABLES.build("table9", chosen.results).notes
    assert any(
        "Not benchmarked in this experiment: *tiny, ProSparse (progressive)*; "
        "*tiny, ProSparse (progressive), FATReLU 0.03*" in note
        for note in notes
    )
    assert set(chosen.results.benchmarks("progressive", "relu").missing.values()) == {
        "not benchmarked in this experiment"
    }
    assert rows["7B, t = 0.03"]["average_sparsity"].ours is not None


def test_table1_shows_token_budgets_beside_the_papers(untrained):
    rows = {row.label: row.cells["accumulated_tokens"] for row in TABLES.build("table1", untrained.results).rows[:-1]}
    assert rows["LLaMA2-7B"].ours.mean == 0
    assert rows["ProSparse-7B"].ours.mean == 180 * 8 * 256
    # Tables 6 and 7: the last stages
    printed = {"7B": "34600000000", "13B": "134220000000", "1B": "473020000000"}
    for scale, amount in printed.items():
        assert rows[f"ProSparse-{scale}"].published == rows[f"ProSparse-{scale}*"].published == amount
    assert {label for label, cell in rows.items() if cell.published} == {
        f"ProSparse-{scale}{star}" for scale in printed for star in ("", "*")
    }
    early = {
        row.label: row.cells["accumulated_tokens"]
        for row in TABLES.build("table1_early_baselines", untrained.results).rows
    }
    assert early["Vanilla ReLU-7B"].published == early["Shifted ReLU-7B"].published == "34600000000"
    assert early["Fixed L1-7B"].published == ""  # printed nowhere
    for name in ("table1", "table1_early_baselines", "table5"):
        assert "7B 34.60 B, 13B 134.22 B, 1B 473.02 B" in to_markdown(TABLES.build(name, untrained.results))


def test_a_pretrained_original_is_no_stand_in(tmp_path):
    original = {"pretrained": "meta-llama/Llama-2-7b-hf"}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": {**CONFIG["runs"]["base"], "init": original}}}
    text = to_markdown(TABLES.build("table1", Synthetic(tmp_path, raw).write().results))
    assert "Ours is meta-llama/Llama-2-7b-hf" in text
    assert "a stand-in: meta" not in text


def test_a_gguf_file_is_named_by_its_stem(untrained):
    text = to_markdown(TABLES.build("table1", untrained.results))
    models = "*Some-135M, original*; *Some-135M, ProSparse (progressive)*"
    assert f"Ours is a stand-in: Some-135M.Q4_1 (GGUF), in {models}." in text
    assert "results/packages" not in text


def test_a_gguf_file_of_the_papers_model_is_no_stand_in(tmp_path):
    original = {"pretrained": "models", "gguf_file": "llama-2-7b.Q4_K_M.gguf"}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": {**CONFIG["runs"]["base"], "init": original}}}
    text = to_markdown(TABLES.build("table1", Synthetic(tmp_path, raw).write().results))
    assert "Ours is llama-2-7b.Q4_K_M (GGUF)" in text


def test_rows_by_likelihood_stand_below_ours_and_enter_no_average(tmp_path):
    tasks = [*CONFIG["benchmarks"]["tasks"], "mmlu_likelihood", "bbh_likelihood"]
    raw = {**CONFIG, "benchmarks": {**CONFIG["benchmarks"], "tasks": tasks}}
    asked, before = Synthetic(tmp_path / "asked", raw).write(), Synthetic(tmp_path / "before").write()
    for name in ("table1", "table1_early_baselines"):
        table, plain = TABLES.build(name, asked.results), TABLES.build(name, before.results)
        assert [row for row in table.rows if "by likelihood" not in row.label] == plain.rows
        labels = [row.label for row in table.rows]
        ours = [row.label for row in plain.rows if row.pair]
        assert all(labels[labels.index(label) + 1] == f"{label}, by likelihood" for label in ours)
    table = TABLES.build("table1", asked.results)
    cells = row_of(table, "ProSparse-7B, by likelihood").cells
    assert {name: (cell.ours.mean, cell.mark) for name, cell in cells.items()} == {"mmlu": (50, ""), "bbh": (50, "")}
    chance = row_of(table, "Chance level, by likelihood").cells
    assert {name: cell.ours.mean for name, cell in chance.items()} == {"mmlu": 30, "bbh": 30}
    assert any("BBH: likeliest, on 100 rows; 7 more rows have open answers" in note for note in table.notes)
    assert (
        "| **LLaMA2-7B, by likelihood** tiny, original | ours | – | – | – | – | – | – | 50.00 ± 4.00 |"
        in to_markdown(table)
    )


def test_a_benchmark_by_likelihood_that_was_not_answered_is_missing(tmp_path):
    raw = {**CONFIG, "benchmarks": {**CONFIG["benchmarks"], "tasks": ["bbh", "bbh_likelihood"]}}
    chosen = Synthetic(tmp_path, raw).write()

    def drop(file):
        del file["benchmarks"]["bbh_likelihood"]
        file["missing"]["bbh_likelihood"] = "none of its rows has candidate answers"

    chosen.edit(chosen.layout.benchmarks("base", "silu", 1), drop)
    cells = row_of(TABLES.build("table1", chosen.results), "LLaMA2-7B, by likelihood").cells
    assert {name: cell.note for name, cell in cells.items()} == {
        "bbh": "missing: none of its rows has candidate answers"
    }
