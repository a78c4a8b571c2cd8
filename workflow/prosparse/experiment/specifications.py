"""Typed job specifications: rules pass them as JSON, provenance records them.

One model and one builder per job; those of a calibration are in ``calibrated``, which compares them. A job that takes a
section of the config as it is needs none.
"""

from __future__ import annotations

from prosparse.experiment.activation import Activation
from prosparse.experiment.data import Corpus, MeasuredSplit, Package
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import (
    chain,
    earlier_draws,
    measured_activations,
    measured_split,
    overhead_run,
    training_free_targets,
)
from prosparse.experiment.measurement import Predictors
from prosparse.experiment.model import Architecture, PretrainedInit, ScratchInit
from prosparse.experiment.section import Precision, Section
from prosparse.experiment.training import Draw, Stage, Training, without_bands

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
        heldout_characters=6 * (data.heldout_sequences + data.tuning_sequences) * data.context_length,
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
        stages=without_bands(chosen.stages[: index + 1]),
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

    split: MeasuredSplit
    activations: list[str]
    corpora: dict[str, MeasuredCorpus]
    precision: Precision


class MeasuredStage(Section):
    stage: int | None  # None: the checkpoint that the run starts from
    step: int  # its last; 0 at the start


class StageSparsitySpecification(Section):
    """A run's stages, under its own activation."""

    activation: Activation
    stages: list[MeasuredStage]
    corpora: dict[str, MeasuredCorpus]
    precision: Precision


class TrainingFreeSpecification(Section):
    """The sparsities to reach with thresholds on a dense pair's activations."""

    activation: Activation
    targets: list[float]
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


def measured_corpora(experiment: Experiment) -> dict[str, MeasuredCorpus]:
    weights = experiment.data.mixtures[experiment.data.mixed]
    return {
        name: MeasuredCorpus(stands_for=corpus.stands_for, weight=weights.get(name, 0))
        for name, corpus in experiment.data.corpora.items()
    }


def sparsity(experiment: Experiment, run: str) -> SparsitySpecification:
    return SparsitySpecification(
        split=measured_split(experiment, run),
        activations=[str(activation) for activation in measured_activations(experiment, run)],
        corpora=measured_corpora(experiment),
        precision=experiment.precision,
    )


def stage_sparsity(experiment: Experiment, run: str) -> StageSparsitySpecification:
    chosen = experiment.runs[run]
    return StageSparsitySpecification(
        activation=chosen.activation,
        stages=[
            MeasuredStage(stage=stage, step=0 if stage is None else chosen.stages[stage].until)
            for stage, _ in chain(experiment, run)
        ],
        corpora=measured_corpora(experiment),
        precision=experiment.precision,
    )


def training_free(experiment: Experiment, run: str, activation: str) -> TrainingFreeSpecification:
    return TrainingFreeSpecification(
        activation=Activation.parse(activation),
        targets=training_free_targets(experiment)[run, activation],
        corpora=measured_corpora(experiment),
        precision=experiment.precision,
    )


def prediction(experiment: Experiment) -> PredictionSpecification:
    assert experiment.predictors is not None
    return PredictionSpecification(
        kinds=list(experiment.predictors.kinds),
        decision_threshold=experiment.predictors.decision_threshold,
        corpora=measured_corpora(experiment),
        precision=experiment.precision,
    )


def bases(experiment: Experiment) -> BasesSpecification:
    return BasesSpecification(corpora=measured_corpora(experiment))
