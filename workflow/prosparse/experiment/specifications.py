"""Typed job specifications: rules pass them as JSON, provenance records them.

One model and one builder per job. A job that takes a section of the config as it is needs none.
"""

from __future__ import annotations

from pathlib import Path

from prosparse.experiment import table2_rows
from prosparse.experiment.activation import Activation
from prosparse.experiment.data import Corpus, Package
from prosparse.experiment.decoding import Decoding, Shape
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.lineage import earlier_draws, measured_activations, overhead_run
from prosparse.experiment.measurement import Operators, Predictors
from prosparse.experiment.model import Architecture, PretrainedInit, ScratchInit
from prosparse.experiment.section import Precision, Section
from prosparse.experiment.training import Draw, Stage, Training
from prosparse.published.settings import scale_of, settings

# ------------------------------------------------------------------------------------- data


class PackageSpecification(Section):
    """A file of the package index."""

    name: str
    package: Package


class CandidatesSpecification(Section):
    """A corpus to read."""

    corpus: Corpus
    heldout_characters: int  # requested of the whole corpus


def package(experiment: Experiment, name: str) -> PackageSpecification:
    return PackageSpecification(name=name, package=experiment.data.packages[name])


def candidates(experiment: Experiment, corpus: str) -> CandidatesSpecification:
    data = experiment.data
    return CandidatesSpecification(
        corpus=data.corpora[corpus],
        # six characters per token is more than any of our tokenizers needs
        heldout_characters=6 * data.heldout_sequences * data.context_length,
    )


# --------------------------------------------------------------------------------- training


class StageSpecification(Section):
    """Everything that determines a stage's weights, except for the tokens and the previous stage."""

    seed: int
    start: Architecture | PretrainedInit | None  # None: the weights of another run's stage
    activation: Activation
    mixture: dict[str, float]
    earlier: tuple[Draw, ...] = ()  # what the runs behind this one trained on, earliest first
    context_length: int
    stages: list[Stage]  # up to and including this one
    total_steps: int  # of the whole run: the learning-rate schedule spans it
    training: Training
    distillation_share: float = 0.0  # weight in the loss of the divergence from a teacher


class PredictorSpecification(Section):
    """Everything that determines the predictors besides the checkpoint and the tokens."""

    activation: Activation
    settings: Predictors
    mixture: dict[str, float]
    seed: int
    precision: Precision = "float32"  # of the model; predictors train in float32


def stage(experiment: Experiment, run: str, index: int, seed: int) -> StageSpecification:
    chosen = experiment.runs[run]
    start = (
        experiment.architectures[chosen.init.architecture]
        if isinstance(chosen.init, ScratchInit)
        else chosen.init
        if isinstance(chosen.init, PretrainedInit)
        else None
    )
    return StageSpecification(
        seed=seed,
        start=start,
        activation=chosen.activation,
        mixture=experiment.data.mixtures[chosen.mixture],
        earlier=earlier_draws(experiment, chosen.init),
        context_length=experiment.data.context_length,
        stages=chosen.stages[: index + 1],
        total_steps=chosen.stages[-1].until,
        training=chosen.training,
        distillation_share=chosen.distillation.share if chosen.distillation else 0.0,
    )


def overhead(experiment: Experiment) -> StageSpecification:
    """Describe the last stage of the run whose overhead is measured."""
    run = overhead_run(experiment)
    assert run is not None
    return stage(experiment, run, len(experiment.runs[run].stages) - 1, experiment.seeds[0])


def predictors(experiment: Experiment, activation: str, seed: int) -> PredictorSpecification:
    assert experiment.predictors is not None
    return PredictorSpecification(
        activation=Activation.parse(activation),
        settings=experiment.predictors,
        mixture=experiment.data.mixtures[experiment.data.mixed],
        seed=seed,
        precision=experiment.precision,
    )


# ----------------------------------------------------------------------------- held-out text


class MeasuredCorpus(Section):
    stands_for: str
    weight: float  # in the mixture average; 0 for a corpus that is only reported separately


class SparsitySpecification(Section):
    """The activations under which a checkpoint is measured."""

    activations: list[str]
    corpora: dict[str, MeasuredCorpus]
    precision: Precision


class PredictionSpecification(Section):
    """The kinds of predictor that are measured."""

    kinds: list[str]
    decision_threshold: float
    corpora: dict[str, MeasuredCorpus]
    precision: Precision


class BasesSpecification(Section):
    """What the loss of a committed base is measured on."""

    corpora: dict[str, MeasuredCorpus]


def _measured_corpora(experiment: Experiment) -> dict[str, MeasuredCorpus]:
    weights = experiment.data.mixtures[experiment.data.mixed]
    return {
        name: MeasuredCorpus(stands_for=corpus.stands_for, weight=weights.get(name, 0))
        for name, corpus in experiment.data.corpora.items()
    }


def sparsity(experiment: Experiment, run: str) -> SparsitySpecification:
    return SparsitySpecification(
        activations=[str(activation) for activation in measured_activations(experiment, run)],
        corpora=_measured_corpora(experiment),
        precision=experiment.precision,
    )


def prediction(experiment: Experiment) -> PredictionSpecification:
    assert experiment.predictors is not None
    return PredictionSpecification(
        kinds=list(experiment.predictors.kinds),
        decision_threshold=experiment.predictors.decision_threshold,
        corpora=_measured_corpora(experiment),
        precision=experiment.precision,
    )


def bases(experiment: Experiment) -> BasesSpecification:
    return BasesSpecification(corpora=_measured_corpora(experiment))


# ---------------------------------------------------------------------------------- timings


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
    scale: str
    pair: str
    checkpoint: Path
    activation: Activation
    tokens: Path  # one folder of tokens per corpus; prompts come from their held-out rows
    predictors: Path | None


class SyntheticModel(Section):
    """A shape with random weights that are as sparse as a published row."""

    row: str
    scale: str
    shape: Shape
    sparsity: float
    activation_recall: float
    predicted_sparsity: float


class DecodingSpecification(Section):
    """The models to decode with."""

    settings: Decoding
    decision_threshold: float
    powerinfer: Path | None  # path of its program
    models: list[TrainedModel | SyntheticModel]


def operators(layout: Layout) -> OperatorsSpecification:
    experiment, trained = layout.experiment, {}
    assert experiment.operators is not None
    for row, pair in table2_rows.trained(experiment).items():
        run, activation = experiment.pair(pair)
        trained[row] = TrainedPatterns(
            checkpoint=layout.checkpoint(run, None, experiment.seeds[0]),
            activation=activation,
            tokens=layout.tokens(experiment.tokenizer(run)),
        )
    return OperatorsSpecification(
        settings=experiment.operators, densities=table2_rows.densities(experiment), trained=trained
    )


def decoding(layout: Layout) -> DecodingSpecification:
    """Describe the trained models; the predictors are of the first kind."""
    experiment = layout.experiment
    models: list[TrainedModel | SyntheticModel] = []
    assert experiment.decoding is not None
    seed, predicted = experiment.seeds[0], table2_rows.predicted(experiment)
    for row, pair in table2_rows.decoded(experiment).items():
        run, activation = experiment.pair(pair)
        models.append(
            TrainedModel(
                row=row,
                scale=scale_of(row),
                pair=pair,
                checkpoint=layout.checkpoint(run, None, seed),
                activation=activation,
                tokens=layout.tokens(experiment.tokenizer(run)),
                predictors=layout.decoding_predictors(run, activation, seed) if row in predicted else None,
            )
        )
    return DecodingSpecification(
        settings=experiment.decoding,
        decision_threshold=experiment.predictors.decision_threshold if experiment.predictors else 0.5,
        powerinfer=None,
        models=models,
    )


def decoding_shape(layout: Layout, name: str) -> DecodingSpecification:
    """Describe a shape's synthetic models."""
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
                scale=scale_of(row),
                shape=shape,
                sparsity=float(printed[row]["average_sparsity"]) / 100,
                activation_recall=float(printed[row]["activation_recall"]) / 100,
                predicted_sparsity=float(printed[row]["predicted_sparsity"]) / 100,
            )
            for row in shape.rows
        ],
    )
