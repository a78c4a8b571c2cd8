"""Runs whose last stage has a target sparsity: lambda comes from their ledgers wherever it is shown."""

from __future__ import annotations

import pytest
from helpers.claims import verdicts_of
from helpers.synthetic_results import CONFIG, STAGES, Synthetic
from helpers.tables import row_of

from prosparse.paper.claims.finding import Verdict
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.html.frontier_chart import points
from prosparse.paper.html.training_chart import training_charts
from prosparse.paper.release import card
from prosparse.paper.results.labels import run_label
from prosparse.paper.results.reader import MissingResult
from prosparse.paper.tables.registry import TABLES


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """The progressive run and the one with the same lambda in fine-tuning end with a target."""
    runs = CONFIG["runs"]
    stages = [*STAGES[:4], {"until": 180, "target_sparsity": 0.9}]
    runs = {
        **runs,
        **{name: {**runs[name], "stages": stages} for name in ("progressive", "progressive-trial")},
        "sft-0.4": {**runs["sft-0.4"], "stages": [{"until": 40, "target_sparsity": 0.9}]},
    }
    raw = {**CONFIG, "runs": runs, "seeds": [1, 2]}
    raw["ours"] = {**raw["ours"], "Constant": "constant-0.1"}
    made = Synthetic(tmp_path_factory.mktemp("steered"), {**raw, "seed_deviation": None})
    for run, stage in card.needs(made.experiment, "progressive").stages:
        for seed in made.experiment.seeds:
            made.trained(run, stage, seed)
    made = made.write()

    def other(record):
        record["final"]["lambda"] = 0.2

    made.edit(made.layout.provenance("progressive", 4, 2), other)  # of the second seed
    return made


def test_tables_show_the_measured_lambda(steered):
    row = row_of(TABLES.build("table6", steered.results), "7B, stage 4")
    assert row.cells["lambda"].ours.seeds == pytest.approx((0.18, 0.2))
    assert row.cells["lambda"].note.startswith("steered to target 90%")
    ours = TABLES.build("ours", steered.results)
    assert row_of(ours, "ProSparse, t = 0.03").cells["lambda"].ours.mean == pytest.approx(0.19)
    assert row_of(ours, "Constant").cells["lambda"].ours.seeds == (0.1,)
    assert row_of(TABLES.build("table5", steered.results), "7B, ProSparse").cells["lambda"].ours.mean == 0.19
    searched = row_of(TABLES.build("search", steered.results), "progressive-trial")
    assert searched.cells["stages"].text == "0 (40), 0.01 (60), sine 0.1 (100), sine 0.1 (120), target 90% (180)"
    assert run_label(steered.experiment, "sft-0.4").startswith("tiny, λ steered to 90%, after")


def test_lambda_that_is_not_measured_is_missing_and_not_zero(steered):
    made = steered.layout.provenance("progressive", 4, 1)
    aside = made.rename(made.with_suffix(".aside"))
    with pytest.raises(MissingResult, match=r"provenance\.json: no such result"):
        TABLES.build("ours", steered.results)
    aside.rename(made)


def test_figure1_draws_the_ledger_after_the_formula(steered):
    _, data = FIGURES.build("figure1", steered.results)
    drawn = [(row["progress"], row["lambda"]) for row in data["data"] if row.get("run") == "progressive"]
    assert [point for point in drawn if point[0] > 120] == [
        (step, pytest.approx(0.001 * step)) for step in range(125, 181, 5)
    ]
    assert (100, 0.1) in drawn


def test_figure2_shades_the_steered_stage(steered):
    _, data = FIGURES.build("figure2", steered.results)
    assert data["regularized"][-1]["to"] == data["stage_ends"][-1]
    assert len(data["regularized"]) == 4


def test_charts_of_the_page_and_the_model_card(steered):
    found = points(steered.results, "steered", "progressive")
    assert [row["lambda"] for row in found] == pytest.approx([0.18, 0.2])
    assert [row["lambda"] for row in points(steered.results, "constant", "constant-0.1")] == [0.1, 0.1]
    chart = next(each for each in training_charts(steered.results) if each.name == "training-progressive")
    assert "0.18" in chart.spec
    text = "\n".join(card._training(steered.results, "progressive"))
    assert "| 0.18 (target 90%) | 180 |" in text
    assert "| 0.1 (sine) | 120 |" in text


def test_claims_are_judged(steered):
    found = verdicts_of(steered)
    assert "At equal λ" not in found[3].evidence
    assert "with 0.1 and" in found[10].evidence
    assert any("to λ = 0.04" in part.quantity for part in found[10].parts)
    assert found[1].verdict is not Verdict.UNTESTABLE
