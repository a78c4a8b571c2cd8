"""Typed job specifications: what a rule passes to a command, and what provenance records."""

from __future__ import annotations

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import earlier_draws
from prosparse.experiment.model import Architecture, PretrainedInit, ScratchInit
from prosparse.experiment.section import Section
from prosparse.experiment.training import Draw, Stage, Training


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


def stage_specification(experiment: Experiment, run: str, stage: int, seed: int) -> StageSpecification:
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
        stages=chosen.stages[: stage + 1],
        total_steps=chosen.stages[-1].until,
        training=chosen.training,
        distillation_share=chosen.distillation.share if chosen.distillation else 0.0,
    )
