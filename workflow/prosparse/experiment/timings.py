"""Typed job specifications of timings: what the operators and decoding are timed on."""

from __future__ import annotations

from pathlib import Path

from prosparse.experiment import table2_rows
from prosparse.experiment.activation import Activation
from prosparse.experiment.decoding import Decoding, Shape
from prosparse.experiment.layout import Layout
from prosparse.experiment.measurement import Operators
from prosparse.experiment.section import Section, WeightPrecision
from prosparse.experiment.specifications import MeasuredCorpus, measured_corpora
from prosparse.published.settings import scale_of, settings


class TrainedPatterns(Section):
    """A trained model, to time its own activation patterns at its own shape."""

    checkpoint: Path
    activation: Activation
    tokens: Path  # one folder of tokens per corpus


class OperatorsSpecification(Section):
    """The operators to time."""

    settings: Operators
    densities: dict[str, list[float]]  # per shape of the settings
    trained: dict[str, TrainedPatterns]  # published row -> the model that stands for it


class TrainedModel(Section):
    """A checkpoint under an activation, and the published ``row`` it stands for."""

    row: str
    precision: WeightPrecision
    scale: str
    pair: str
    checkpoint: Path
    activation: Activation
    tokens: Path  # one folder of tokens per corpus; prompts come from their held-out rows
    predictors: Path | None


class SyntheticModel(Section):
    """A shape with random weights that are as sparse as a published row."""

    row: str
    precision: WeightPrecision
    scale: str
    shape: Shape
    sparsity: float
    activation_recall: float
    predicted_sparsity: float


class MeasuredModel(Section):
    """A checkpoint under an activation, and the tokens that it is measured on."""

    pair: str
    checkpoint: Path
    activation: Activation
    tokens: Path  # one folder of tokens per corpus


class PrecisionSpecification(Section):
    """The models to measure with weights in each precision."""

    precisions: list[WeightPrecision]
    models: list[MeasuredModel]
    corpora: dict[str, MeasuredCorpus]


class DecodingSpecification(Section):
    """The models to decode with."""

    settings: Decoding
    decision_threshold: float
    powerinfer: Path | None  # path of its program
    models: list[TrainedModel | SyntheticModel]


def operators(layout: Layout) -> OperatorsSpecification:
    """Describe the config's shapes, with random patterns: nothing that is trained."""
    experiment = layout.experiment
    assert experiment.operators is not None
    return OperatorsSpecification(
        settings=experiment.operators, densities=table2_rows.densities(experiment), trained={}
    )


def trained_operators(layout: Layout) -> OperatorsSpecification:
    """Describe the trained models, each with its own shape and patterns."""
    experiment, trained = layout.experiment, {}
    assert experiment.operators is not None
    for row, pair in table2_rows.trained(experiment).items():
        run, activation = experiment.pair(pair)
        trained[row] = TrainedPatterns(
            checkpoint=layout.checkpoint(run, None, experiment.seeds[0]),
            activation=activation,
            tokens=layout.tokens(experiment.tokenizer(run)),
        )
    return OperatorsSpecification(settings=experiment.operators, densities={}, trained=trained)


def decoding(layout: Layout) -> DecodingSpecification:
    """Describe the trained models in each precision; the predictors are of the first kind."""
    experiment = layout.experiment
    models: list[TrainedModel | SyntheticModel] = []
    assert experiment.decoding is not None
    seed, predicted = experiment.seeds[0], table2_rows.predicted(experiment)
    for row, pair in table2_rows.decoded(experiment).items():
        run, activation = experiment.pair(pair)
        models += [
            TrainedModel(
                row=row,
                precision=precision,
                scale=scale_of(row),
                pair=pair,
                checkpoint=layout.checkpoint(run, None, seed),
                activation=activation,
                tokens=layout.tokens(experiment.tokenizer(run)),
                predictors=layout.decoding_predictors(run, activation, seed) if row in predicted else None,
            )
            for precision in experiment.decoding.precisions
        ]
    return DecodingSpecification(
        settings=experiment.decoding,
        decision_threshold=experiment.predictors.decision_threshold if experiment.predictors else 0.5,
        powerinfer=None,
        models=models,
    )


def precision(layout: Layout) -> PrecisionSpecification:
    """Describe the trained models that are decoded, each once."""
    experiment, models = layout.experiment, []
    assert experiment.decoding is not None
    for pair in dict.fromkeys(table2_rows.decoded(experiment).values()):
        run, activation = experiment.pair(pair)
        models.append(
            MeasuredModel(
                pair=pair,
                checkpoint=layout.checkpoint(run, None, experiment.seeds[0]),
                activation=activation,
                tokens=layout.tokens(experiment.tokenizer(run)),
            )
        )
    return PrecisionSpecification(
        precisions=experiment.decoding.precisions, models=models, corpora=measured_corpora(experiment)
    )


def decoding_shape(layout: Layout, name: str) -> DecodingSpecification:
    """Describe a shape's synthetic models in each precision."""
    experiment = layout.experiment
    assert experiment.decoding is not None
    shape, printed = experiment.decoding.shapes[name], {setting.name: setting.printed for setting in settings()}
    return DecodingSpecification(
        settings=experiment.decoding,
        decision_threshold=0.5,
        powerinfer=layout.powerinfer() if experiment.decoding.engines.powerinfer else None,
        models=[
            SyntheticModel(
                row=row,
                precision=precision,
                scale=scale_of(row),
                shape=shape,
                sparsity=float(printed[row]["average_sparsity"]) / 100,
                activation_recall=float(printed[row]["activation_recall"]) / 100,
                predicted_sparsity=float(printed[row]["predicted_sparsity"]) / 100,
            )
            for row in shape.rows
            for precision in experiment.decoding.of_shape(name)
        ],
    )
