from __future__ import annotations

import copy
import csv
import io
import math
import statistics

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.config import ConfigError
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.value import Value, mean_of
from prosparse.paper.tables import registry as tables
from prosparse.paper.tables.text import latex_escape, to_csv, to_latex, to_markdown
from prosparse.published.tables import GROUPS


def _row(table, label):
    return next(row for row in table.rows if row.label == label)


def test_spread_is_the_sample_standard_deviation_over_seeds(several_seeds):
    measured = several_seeds.results.sparsity("progressive", "relu")
    losses = [3.49 + 0.002 * seed for seed in (1, 2, 3)]
    assert measured.loss.mean == pytest.approx(statistics.mean(losses))
    assert measured.loss.spread == pytest.approx(0.002)
    assert len(measured.layers) == 6


def test_one_seed_has_no_spread(synthetic):
    assert synthetic.results.sparsity("progressive", "relu").loss.spread is None


def test_errors_of_means_add_in_quadrature_and_do_not_shrink_with_seeds():
    a, b = Value((10.0, 12.0), (3.0, 3.0)), Value((20.0, 22.0), (4.0, 4.0))
    mean = mean_of([a, b])
    assert mean.seeds == (15.0, 17.0)
    assert mean.standard_error == pytest.approx(2.5)  # sqrt(9 + 16) / 2
    assert mean.spread == pytest.approx(math.sqrt(2))
    assert mean.total_error == pytest.approx(math.hypot(2.5, 1.0))  # sqrt(2) / sqrt(2 seeds)
    assert a.minus(b).standard_error == pytest.approx(5.0)


def test_a_missing_file_is_named(synthetic):
    path = synthetic.results.sparsity_file("vanilla", 1)
    path.unlink()
    with pytest.raises(MissingResult, match=r"measurements/vanilla/seed1/sparsity\.json"):
        tables.write("table1_early_baselines", synthetic.experiment, synthetic.directory)


def test_an_activation_that_was_not_measured_is_named(synthetic):
    with pytest.raises(MissingResult, match=r"fatrelu-0\.5 not measured"):
        synthetic.results.sparsity("progressive", "fatrelu-0.5")


def test_unknown_table_lists_the_known():
    with pytest.raises(ConfigError, match="table9"):
        tables.write("table10", None, "nowhere")


def test_table1_puts_ours_beside_the_papers(synthetic):
    table = tables.build("table1", synthetic.results)
    cells = _row(table, "ProSparse-7B").cells
    assert cells["average_sparsity"].published == "89.32"
    assert cells["average_sparsity"].ours.mean == pytest.approx(100 * (0.885 + 0.012 + 0.001))
    assert cells["commonsense_reasoning"].ours.standard_error == pytest.approx(4 / math.sqrt(5))
    assert cells["commonsense_reasoning"].mark == ""
    assert cells["average_performance"].mark == "†"  # AGI Eval has no rows
    assert cells["agi_eval"].ours is None
    assert "no package holds its rows" in cells["agi_eval"].note
    assert any("AGI Eval" in note and "no package" in note for note in table.notes)
    assert any("SIQA is a stand-in" in note for note in table.notes)
    assert any("a stand-in: llama, 6 layers" in note for note in table.notes)


def test_a_row_without_a_run_is_missing_and_never_filled(synthetic):
    table = tables.build("table1", synthetic.results)
    for label, reason in (("ReluLLaMA-7B", "released checkpoint"), ("MiniCPM-1B", "no run of this experiment")):
        row = _row(table, label)
        assert row.pair is None
        assert all(cell.ours is None and reason in cell.note for cell in row.cells.values())
    assert "| **MiniCPM-1B** | paper (ours: missing) | 36.85 |" in to_markdown(table)


def test_chance_level_row(synthetic):
    cells = _row(tables.build("table3", synthetic.results), "Chance level").cells
    assert cells["piqa"].ours.mean == 50
    assert cells["humaneval"].ours.mean == 0
    group = _row(tables.build("table1", synthetic.results), "Chance level").cells["commonsense_reasoning"]
    assert group.ours.mean == pytest.approx(100 * (0.5 + 1 / 3 + 0.25 + 0.5 + 0.5) / 5)


def test_every_table_needs_what_it_reads(synthetic):
    """Only the files a table names may be there, and it must be written from them."""
    for name in tables.TABLES:
        needs = tables.needs(name, synthetic.experiment)
        allowed = {path for paths in synthetic.results.files(needs).values() for path in paths}
        read = []

        class Recording(Results):
            def _json(self, path):
                read.append(path)  # noqa: B023
                return super()._json(path)

        tables.build(name, Recording(synthetic.directory, synthetic.experiment))
        assert set(read) <= allowed, name
        assert set(read) == allowed, f"{name} asks for more than it reads"


def test_table5_shows_our_factor_and_equal_budgets(synthetic):
    table = tables.build("table5", synthetic.results)
    assert _row(table, "7B, λ = 1e-1").cells["lambda"].ours.mean == 0.1
    assert _row(table, "7B, ProSparse").cells["lambda"].published == ""
    budget = (2000 + 180) * 8 * 256
    assert {row.cells["accumulated_tokens"].ours.mean for row in table.rows if row.pair} == {budget}


def test_table4_counts_tokens_in_full(synthetic):
    cell = _row(tables.build("table4", synthetic.results), "ProSparse, 34.60 B tokens").cells["accumulated_tokens"]
    assert cell.published == "34600000000"
    assert cell.ours.mean == 180 * 8 * 256


def test_table9_names_our_thresholds(synthetic):
    table = tables.build("table9", synthetic.results)
    assert _row(table, "7B, t = 0").cells["threshold"].ours.mean == 0
    assert _row(table, "7B, t = 0.03").cells["threshold"].ours.mean == 0.03


def test_table6_sets_our_stages_beside_the_published(synthetic):
    rows = [row for row in tables.build("table6", synthetic.results).rows if row.label.startswith("7B")]
    assert [row.cells["lambda"].published for row in rows] == ["0", "5e-3", "5e-2", "5e-2", "2e-1", "2e-1"]
    assert [row.cells["accumulated_steps"].ours.mean for row in rows] == [40, 60, 100, 120, 160, 180]
    assert rows[-1].cells["accumulated_tokens"].published == "34600000000"
    assert rows[-1].cells["sparsity"].ours.mean == pytest.approx(88.5, abs=1)


def test_table7_continues_decay_and_sft_from_the_run_before(tmp_path):
    vanilla = CONFIG["runs"]["vanilla"]
    raw = {
        **CONFIG,
        "runs": {
            **CONFIG["runs"],
            "decay": {**vanilla, "init": {"run": "progressive"}, "stages": [{"until": 30, "peak": 0.4}]},
            "sft-tuned": {**vanilla, "init": {"run": "decay"}, "stages": [{"until": 10, "peak": 0.1}]},
        },
        "stages": {"1B": ["progressive", "decay", "sft-tuned"]},
    }  # fmt: skip
    table = tables.build("table7", Synthetic(tmp_path, raw).write().results)
    decay, tuned = _row(table, "1B, decay"), _row(table, "1B, SFT")
    assert decay.cells["accumulated_steps"].ours.mean == 180 + 30
    assert tuned.cells["accumulated_steps"].ours.mean == 180 + 30 + 10
    assert tuned.cells["accumulated_tokens"].ours.mean == 220 * 8 * 256
    assert tuned.cells["lambda"].published == "1e-2"
    extra = _row(table, "1B, stage 5")  # ours has a stage that the 1B model had not
    assert not extra.is_published
    assert extra.pair == "progressive, stage 5"


def test_table8_weights_corpora_of_one_data_set_by_tokens(synthetic):
    def merge(value):
        for entry in value["measurements"]:
            entry["corpora"]["dialogue"].update(sparsity=0.90, tokens=3000)
            entry["corpora"]["questions"].update(stands_for="ultrachat", sparsity=0.80, tokens=1000)

    synthetic.edit(synthetic.results.sparsity_file("progressive", 1), merge)
    cells = _row(tables.build("table8", synthetic.results), "ProSparse-7B").cells
    assert cells["ultrachat"].ours.mean == pytest.approx(87.5)
    assert cells["paq"].ours is None
    assert cells["paq"].published == "97.28"


def test_csv_is_tidy(several_seeds):
    tables.write("table1", several_seeds.experiment, several_seeds.directory)
    lines = list(csv.DictReader((several_seeds.directory / "tables" / "table1.csv").open()))
    columns = len(GROUPS) + 5
    assert len(lines) == 11 * columns + 7  # seven measured columns of the chance row
    cell = next(x for x in lines if (x["row"], x["column"]) == ("ProSparse-7B*", "average_sparsity"))
    assert float(cell["ours"]) == pytest.approx(88.7)
    assert float(cell["spread"]) == pytest.approx(0.1)
    assert (cell["published"], cell["unit"], cell["pair"]) == ("88.11", "%", "progressive@relu")
    assert cell["note"].startswith("stand-in: llama")


def test_markdown_rows_have_as_many_cells_as_the_header(several_seeds):
    for name in tables.TABLES:
        text = to_markdown(tables.build(name, several_seeds.results))
        bars = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
        assert len(bars) == 1, name
        assert "nan" not in text


def test_latex_is_escaped_ascii_with_even_rows(several_seeds):
    assert latex_escape(r"50 % of a_b & `c` {x} ±†") == r"50 \% of a\_b \& c \{x\} $\pm$$^\dagger$"
    assert latex_escape("\\") == r"\textbackslash{}"
    for name in tables.TABLES:
        text = to_latex(tables.build(name, several_seeds.results))
        assert text.isascii()
        assert "?" not in text
        assert text.count("{") == text.count("}")
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1


def test_without_benchmarks_the_columns_are_missing_and_nothing_is_needed(tmp_path):
    raw = {**CONFIG, "benchmarks": {"rows": "packages", "tasks": []}}
    synthetic = Synthetic(tmp_path, raw).write()
    assert tables.needs("table1", synthetic.experiment).benchmarks == set()
    cells = _row(tables.build("table1", synthetic.results), "ProSparse-7B").cells
    assert cells["average_performance"].ours is None
    assert cells["held_out_loss"].ours is not None
    assert "missing" in to_markdown(tables.build("table1", synthetic.results))
    assert set(synthetic.results.benchmarks("base", "silu").missing.values()) == {"this experiment runs no benchmark"}


def test_a_pretrained_original_is_no_stand_in(tmp_path):
    original = {"pretrained": "meta-llama/Llama-2-7b-hf"}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": {**CONFIG["runs"]["base"], "init": original}}}
    text = to_markdown(tables.build("table1", Synthetic(tmp_path, raw).write().results))
    assert "Ours is meta-llama/Llama-2-7b-hf" in text
    assert "a stand-in: meta" not in text


GGUF = {"pretrained": "results/packages/some-model-1.0", "gguf_file": "Some-135M.Q4_1.gguf"}


@pytest.fixture
def untrained(tmp_path):
    """The original is a GGUF file as it is, which is the first of the 7B model's stages too."""
    base = {**CONFIG["runs"]["base"], "init": GGUF, "stages": [{"until": 0}]}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": base}, "stages": {"7B": ["base", "progressive"]}}
    return Synthetic(tmp_path / "untrained", {**raw, "search": ["base"]}).write()


def test_a_gguf_file_is_named_by_its_stem(untrained):
    text = to_markdown(tables.build("table1", untrained.results))
    assert "Ours is a stand-in: Some-135M.Q4_1 (GGUF) (runs: `base`; `progressive`)." in text
    assert "results/packages" not in text


def test_a_gguf_file_of_the_papers_model_is_no_stand_in(tmp_path):
    original = {"pretrained": "models", "gguf_file": "llama-2-7b.Q4_K_M.gguf"}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": {**CONFIG["runs"]["base"], "init": original}}}
    text = to_markdown(tables.build("table1", Synthetic(tmp_path, raw).write().results))
    assert "Ours is llama-2-7b.Q4_K_M (GGUF)" in text


def test_an_untrained_stage_has_no_loss_and_no_sparsity(untrained):
    row = _row(tables.build("table6", untrained.results), "7B, stage 0")
    assert [row.cells[key].ours.mean for key in ("lambda", "accumulated_steps", "accumulated_tokens")] == [0, 0, 0]
    for key in ("sparsity", "lm_loss"):
        assert row.cells[key].ours is None
        assert row.cells[key].note.startswith("missing: this stage does not train")
    assert untrained.results.ledger("base") == []


def test_table1_shows_token_budgets_beside_the_papers(untrained):
    rows = {row.label: row.cells["accumulated_tokens"] for row in tables.build("table1", untrained.results).rows[:-1]}
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
        for row in tables.build("table1_early_baselines", untrained.results).rows
    }
    assert early["Vanilla ReLU-7B"].published == early["Shifted ReLU-7B"].published == "34600000000"
    assert early["Fixed L1-7B"].published == ""  # printed nowhere
    for name in ("table1", "table1_early_baselines", "table5"):
        assert "7B 34.60 B, 13B 134.22 B, 1B 473.02 B" in to_markdown(tables.build(name, untrained.results))


def test_ours_alone_in_the_configs_order_without_a_line_of_the_paper(synthetic):
    table = tables.build("ours", synthetic.results)
    assert [(row.label, row.pair) for row in table.rows] == [
        ("Dense, same tokens", "dense@silu"),
        ("ProSparse, t = 0.03", "progressive@fatrelu-0.03"),
    ]
    dense, shifted = (row.cells for row in table.rows)
    assert dense["accumulated_tokens"].ours.mean == shifted["accumulated_tokens"].ours.mean == 2180 * 8 * 256
    assert (dense["lambda"].ours.mean, shifted["lambda"].ours.mean) == (0, 0.4)
    assert shifted["average_sparsity"].ours.mean == pytest.approx(100 * (0.885 + 1.2 * 0.03 + 0.001))
    assert dense["held_out_loss"].ours.mean == pytest.approx(3.472)
    assert dense["average_performance"].ours.mean > 0
    text = to_markdown(table)
    assert "paper (ours" not in text
    assert "| paper |" not in text
    assert "| **Dense, same tokens** `dense@silu` | ours | 4,464,640 | 0 |" in text
    assert "7B 34.60 B, 13B 134.22 B, 1B 473.02 B" in text
    assert "of the paper" not in to_latex(table).partition(r"\caption")[2].partition("}")[0]


def test_search_log_tells_what_each_run_tried(synthetic):
    table = tables.build("search", synthetic.results)
    assert [row.label for row in table.rows] == ["constant-0.4", "distilled", "progressive", "progressive@fatrelu-0.03"]
    text = to_markdown(table)
    assert (
        "| **constant-0.4** | ours | base | relu | next token | 0.001 | cosine | 180 | 368,640 | 0 (40), 0.4 (180) |"
    ) in text
    assert "| **distilled** | ours | dense | relu | 0.5 from base | 0.001 | cosine | 30 | 61,440 | 0 (30) |" in text
    assert "| 0 (40), 0.01 (60), sine 0.1 (100), sine 0.1 (120), sine 0.4 (160), sine 0.4 (180) |" in text
    cells = table.rows[1].cells
    assert cells["average_sparsity"].ours.mean == pytest.approx(65.1)
    assert cells["held_out_loss"].ours.mean == pytest.approx(3.492)
    assert cells["lm_loss"].ours.mean == 3.6
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(io.StringIO(to_csv(table)))}
    assert lines["distilled", "objective"]["ours"] == "0.5 from base"
    assert lines["progressive", "average_sparsity"]["ours"] == "88.6"
    shifted = synthetic.results.sparsity("progressive", "fatrelu-0.03").sparsity.mean
    assert shifted > 88.6
    assert float(lines["progressive@fatrelu-0.03", "average_sparsity"]["ours"]) == pytest.approx(shifted)


def test_search_log_of_starts(synthetic, untrained):
    raw = copy.deepcopy(CONFIG)
    raw["runs"]["final-1"]["init"]["stage"] = 2
    raw["search"] = ["final-1", "base"]
    table = tables.build("search", Synthetic(synthetic.directory, raw).write().results)
    starts = [row.cells["start"].text for row in table.rows]
    assert starts[0] == "progressive stage 2"
    assert starts[1].startswith("llama, 6 layers")
    text = to_markdown(tables.build("search", untrained.results))
    assert "| **base** | ours | Some-135M.Q4_1 (GGUF) | silu | – | – | – | 0 | 0 | – | 0.00 | 3.502 | – |" in text


def test_pairs_that_answer_no_benchmark_keep_sparsity_and_loss(synthetic):
    raw = copy.deepcopy(CONFIG) | {"benchmarked": ["progressive@fatrelu-0.01"]}
    chosen = Synthetic(synthetic.directory, raw)
    needs = tables.needs("table9", chosen.experiment)
    assert needs.benchmarks == {("progressive", "fatrelu-0.01")}
    assert needs.sparsity == tables.needs("table9", synthetic.experiment).sparsity
    rows = {row.label: row.cells for row in tables.build("table9", chosen.results).rows}
    assert rows["7B, t = 0.01"]["average_performance"].ours is not None
    assert rows["7B, t = 0.03"]["average_performance"].ours is None
    notes = tables.build("table9", chosen.results).notes
    assert any(
        "Not benchmarked in this experiment: `progressive@relu`; `progressive@fatrelu-0.03`" in note for note in notes
    )
    assert set(chosen.results.benchmarks("progressive", "relu").missing.values()) == {
        "not benchmarked in this experiment"
    }
    assert rows["7B, t = 0.03"]["average_sparsity"].ours is not None


@pytest.mark.parametrize("name", ["ours", "search"])
def test_without_runs_ours_and_search_say_so_in_a_line_and_need_nothing(nothing, name):
    assert tables.needs(name, nothing.experiment) == Needs()
    heading, _, line = to_markdown(tables.build(name, nothing.results)).splitlines()
    assert heading.startswith("### ")
    assert line == "Experiment `synthetic` has none."


def test_needs_are_united():
    a, b = Needs({"x"}, {("x", "relu")}), Needs({"y"}, set(), {("y", 0)})
    assert (a | b) == Needs({"x", "y"}, {("x", "relu")}, {("y", 0)})
    assert (a | Needs(operators=True)).operators
    assert not (a | b).operators
    c = Needs(prediction={("x", "relu")}, predicted_benchmarks={("x", "relu")}, decoding=True, decoding_shapes={"7b"})
    assert (a | c) == Needs({"x"}, {("x", "relu")}, set(), False, c.prediction, c.predicted_benchmarks, True, {"7b"})


def test_nothing_measured_renders_everywhere(nothing):
    for name in tables.TABLES:
        table = tables.build(name, nothing.results)
        for render in (to_csv, to_markdown, to_latex):
            assert render(table)
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert all(line["ours"] == "" and line["note"].startswith("missing") for line in lines), name
