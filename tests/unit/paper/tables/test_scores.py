"""Scores at chance are marked, and the original's scores choose the columns of every row's average."""

from __future__ import annotations

import csv
import io

import pytest
from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_csv, to_latex, to_markdown
from prosparse.published.tables import GROUPS


def answered(synthetic: Synthetic, run: str, activation: str, scores: dict[str, float]) -> None:
    """Overwrite a pair's scores (fractions), each with a standard error of 0.01."""

    def change(file):
        for name, score in scores.items():
            file["benchmarks"][name] |= {"score": score, "standard_error": 0.01}

    synthetic.edit(synthetic.layout.benchmarks(run, activation, 1), change)


@pytest.fixture
def able(synthetic: Synthetic) -> Synthetic:
    """The original is above chance in reading comprehension and GSM8K; ProSparse in MMLU."""
    answered(synthetic, "base", "silu", {"boolq": 0.6, "lambada": 0.3, "tydiqa": 0.3, "gsm8k": 0.1})
    answered(synthetic, "progressive", "fatrelu-0.01", {"boolq": 0.6, "lambada": 0.2, "gsm8k": 0.01, "mmlu": 0.75})
    return synthetic


def test_scores_at_chance_are_marked_in_every_format(able):
    table = TABLES.build("table1", able.results)
    cells = row_of(table, "ProSparse-7B").cells
    assert cells["gsm8k"].mark == "°"
    assert "not above chance (0.00)" in cells["gsm8k"].note
    assert cells["mmlu"].mark == ""
    assert "1.00 ± 1.00°" in to_markdown(table)
    assert r"1.00 $\pm$ 1.00$^\circ$" in to_latex(table)
    assert any(note.startswith("`°`: not above chance") for note in table.notes)
    assert row_of(TABLES.build("table3", able.results), "ProSparse-7B").cells["piqa"].mark == "°"


@pytest.mark.parametrize("name", ["table1", "table1_early_baselines", "table4", "table5", "table9", "ours"])
def test_every_row_averages_the_columns_in_which_the_original_is_above_chance(able, name):
    table = TABLES.build(name, able.results)
    for row in table.rows:
        if row.pair is None:
            continue
        benchmarks = able.results.benchmarks(*able.experiment.pair(row.pair))
        expected = (benchmarks.column("reading_comprehension").value.mean + benchmarks.column("gsm8k").value.mean) / 2
        assert row.cells["average_performance"].ours.mean == pytest.approx(expected)
        assert "Reading Comprehension, GSM8K (chance: 10.00)" in row.cells["average_performance"].note
    [note] = [note for note in table.notes if "Average Performance: mean of" in note]
    assert (
        "left out: Code Generation, Commonsense Reasoning, MMLU, BBH, where *tiny, original* is not above chance"
        in note
    )
    assert "missing: AGI Eval" in note


def test_the_chance_row_averages_the_same_columns(able):
    cells = row_of(TABLES.build("table1", able.results), "Chance level").cells
    assert cells["average_performance"].ours.mean == pytest.approx((50 + 0 + 10) / 3 / 2)


def test_without_a_column_above_chance_there_is_no_average(synthetic):
    table = TABLES.build("table1", synthetic.results)
    cell = row_of(table, "ProSparse-7B").cells["average_performance"]
    assert (cell.ours, cell.text) == (None, "–")
    assert "since *tiny, original* is not above chance in any column" in cell.note
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    [line] = [x for x in lines if (x["row"], x["column"]) == ("ProSparse-7B", "average_performance")]
    assert line["ours"] == ""
    assert "average_performance" not in row_of(table, "Chance level").cells


def test_without_an_original_every_measured_column_is_averaged(synthetic):
    raw = {**CONFIG, "benchmarked": ["progressive@fatrelu-0.01"]}
    chosen = Synthetic(synthetic.directory, raw)
    cell = row_of(TABLES.build("table1", chosen.results), "ProSparse-7B").cells["average_performance"]
    assert cell.note.startswith("† Average Performance: mean of the 6 measured columns of 7; missing: AGI Eval")
    assert len(GROUPS) == 7


@pytest.mark.parametrize("name", ["table5", "table9", "ours", "table2_predictors"])
def test_a_table_with_an_average_needs_the_originals_benchmarks(untrained, name):
    assert ("base", "silu") in TABLES.needs(name, untrained.experiment).benchmarks
