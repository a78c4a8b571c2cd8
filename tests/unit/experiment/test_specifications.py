"""Job specifications against the config and the published tables."""

from __future__ import annotations

import copy
import json

import pytest
from helpers.synthetic_results import CONFIG
from pydantic import ValidationError

from prosparse.experiment import specifications, timings
from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.published.tables import published_table


@pytest.fixture
def layout() -> Layout:
    return Layout.of(load(copy.deepcopy(CONFIG)))


def test_every_specification_arrives_as_it_was_sent(layout):
    experiment = layout.experiment
    corpus = next(iter(experiment.data.corpora))
    for built in (
        specifications.candidates(experiment, corpus),
        specifications.stage(experiment, "progressive", 1, 1),
        specifications.overhead(experiment),
        specifications.predictors(experiment, "fatrelu-0.01", 1),
        specifications.sparsity(experiment, "progressive"),
        specifications.stage_sparsity(experiment, "progressive"),
        specifications.training_free(experiment, "base", "silu"),
        specifications.prediction(experiment),
        specifications.bases(experiment),
        timings.operators(layout),
        timings.trained_operators(layout),
        timings.decoding(layout),
        timings.precision(layout),
        timings.decoding_shape(layout, "llama-7b"),
    ):
        sent = json.dumps(built.model_dump(mode="json"))
        assert sent.isascii()
        assert type(built).model_validate_json(sent) == built
        with pytest.raises(ValidationError, match="unexpected"):
            type(built).model_validate({**built.model_dump(), "unexpected": 1})


def test_the_overhead_is_measured_on_the_last_stage_of_the_first_regularized_run(layout):
    found = specifications.overhead(layout.experiment)
    runs = layout.experiment.runs.values()
    first = next(run for run in runs if any(stage.peak for stage in run.stages))
    assert (found.activation, found.stages) == (first.activation, first.stages)


def test_stages_are_measured_at_their_last_steps_under_the_runs_activation(layout):
    found = specifications.stage_sparsity(layout.experiment, "shifted")
    assert str(found.activation) == "shiftrelu-0.1"
    assert [(each.stage, each.step) for each in found.stages] == [(None, 0), (0, 180)]
    assert [(each.stage, each.step) for each in specifications.stage_sparsity(layout.experiment, "base").stages] == [
        (0, 2000)
    ]
    assert found.corpora == specifications.sparsity(layout.experiment, "shifted").corpora


def test_trained_models_are_decoded_with_the_files_of_their_runs(layout):
    models = {model.row: model for model in timings.decoding(layout).models}
    final = models["ProSparse-7B"]
    assert str(final.checkpoint) == "results/synthetic/checkpoints/progressive/seed1/stage5"
    assert str(final.predictors) == "results/synthetic/predictors/progressive/seed1/fatrelu-0.01/nonzero"
    assert str(final.tokens) == "results/synthetic/data/tokens/bpe"
    assert models["Dense-7B"].predictors is None  # SiLU has no zeros


def test_synthetic_models_are_as_sparse_as_printed(layout):
    printed = {row["setting"]: row for row in published_table("table2_acceleration")}
    models = timings.decoding_shape(layout, "llama-7b").models
    assert [(model.row, model.precision) for model in models] == [
        (row, precision) for row in ("ReluLLaMA-7B", "ProSparse-7B") for precision in ("bfloat16", "q4_0")
    ]
    for model in models:
        row = printed[model.row]
        assert model.sparsity == pytest.approx(float(row["average_sparsity"]) / 100)
        assert model.activation_recall == pytest.approx(float(row["activation_recall"]) / 100)
        assert model.predicted_sparsity == pytest.approx(float(row["predicted_sparsity"]) / 100)
