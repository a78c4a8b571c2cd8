"""Sections ``training`` and ``runs``: stages of λ(t), the optimizer, the runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from prosparse.experiment.activation import Activation
from prosparse.experiment.model import Init
from prosparse.experiment.section import Count, Fraction, Name, Precision, Section
from prosparse.system.errors import ConfigError


class Stage(Section):
    """One stage of λ(t), section 3.2 of the paper."""

    until: Annotated[int, Field(ge=0)] = Field(
        description="Accumulated optimizer steps at its end; 0 in a run's only stage: use the start as it is."
    )
    shape: Literal["constant", "sine", "linear"] = Field(
        default="constant",
        description="Constant at peak, or a half sine or a line from the previous peak (at first 0) up to it. The "
        "line and a rising first stage are ours, not the paper's.",
    )
    peak: Annotated[float, Field(ge=0)] = Field(default=0.0, description="λ at its end.")
    target_sparsity: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Instead of peak: λ is steered so that training sparsity is this at its end."
    )
    expected_sparsity: Annotated[tuple[Fraction, Fraction] | None, Field(exclude_if=lambda band: band is None)] = Field(
        default=None,
        description="[low, high]: the stage stops, and keeps its last checkpoint, when training sparsity leaves this "
        "band. It is the mean of the ledger's rows in the last tenth of the stage's steps, checked from the middle of "
        "the stage on and at its end. Changes no weights.",
    )

    @model_validator(mode="after")
    def target_or_peak(self) -> Self:
        if self.target_sparsity is None:
            return self
        if "peak" in self.model_fields_set:
            raise ValueError("a stage has a peak or a target_sparsity: remove one")
        if self.shape != "constant":
            raise ValueError(f"shape is {self.shape}: with target_sparsity, only constant is allowed (the default)")
        if self.until == 0:
            raise ValueError("until is 0: a stage with target_sparsity trains for at least one step")
        return self

    @model_validator(mode="after")
    def band_has_room(self) -> Self:
        if self.expected_sparsity is None:
            return self
        low, high = self.expected_sparsity
        if low >= high:
            raise ValueError(f"expected_sparsity is [{low:g}, {high:g}]: the first must be less than the second")
        if self.until == 0:
            raise ValueError("until is 0: a stage with expected_sparsity trains for at least one step")
        return self

    @model_serializer(mode="wrap")
    def without_what_it_lacks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A stage has one of two keys; results of stages with a peak were recorded before there were targets."""
        values: dict[str, Any] = serialize(self)
        values.pop("target_sparsity" if self.target_sparsity is None else "peak", None)
        return values

    @property
    def steered(self) -> bool:
        """Whether λ follows measured sparsity instead of a formula."""
        return self.target_sparsity is not None

    @property
    def regularized(self) -> bool:
        """Whether λ is above 0 at its end."""
        return self.peak > 0 or self.steered

    @property
    def factor_text(self) -> str:
        """λ at its end, as far as the stage says: ``0.1``, ``sine 0.4`` or ``target 90%``."""
        if self.target_sparsity is not None:
            return f"target {100 * self.target_sparsity:g}%"
        return f"{'' if self.shape == 'constant' else f'{self.shape} '}{self.peak:g}"


def without_bands(stages: Iterable[Stage]) -> list[Stage]:
    """Return stages as far as they determine weights: without their ``expected_sparsity``."""
    return [stage.model_copy(update={"expected_sparsity": None}) for stage in stages]


class Training(Section):
    """The optimizer and how a step is computed."""

    learning_rate: Annotated[float, Field(gt=0)] = Field(description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        default="cosine",
        description="Decay of the learning rate over the whole run; wsd: constant, then down to 0 over decay_share of "
        "the steps, as 1 - sqrt of the share decayed.",
    )
    # excluded when unset, so that other schedules keep their specification
    decay_share: Annotated[float | None, Field(gt=0, le=1, exclude_if=lambda share: share is None)] = Field(
        default=None, description="Of wsd: the last share of the run's steps, over which the learning rate decays."
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(default=0, description="Linear warm-up, in steps.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.1, description="AdamW's.")
    betas: tuple[Fraction, Fraction] = Field(default=(0.9, 0.95), description="AdamW's.")
    gradient_clip: Annotated[float, Field(gt=0)] = Field(default=1.0, description="Largest gradient norm.")
    batch_size: Count = Field(description="Sequences per optimizer step, over all devices.")
    micro_batch_size: Count = Field(description="Sequences per forward pass and device.")
    precision: Precision = Field(
        default="float32", description="Precision of matrix products; weights stay in float32."
    )
    activation_checkpointing: bool = Field(default=False, description="Recompute activations to save memory.")
    fsdp: bool = Field(default=False, description="Shard weights, gradients and optimizer over the processes.")
    compile: bool = Field(default=False, description="torch.compile each layer.")
    attention: Literal["sdpa", "eager"] = Field(
        default="sdpa", description="eager: matrix products, whose backward pass is faster on CPUs."
    )
    log_every: Count = Field(default=10, description="Steps between ledger rows.")
    checkpoint_every: Count = Field(default=100, description="Steps between resumable checkpoints.")

    @model_validator(mode="after")
    def batch_divides(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self

    @model_validator(mode="after")
    def decay_share_where_needed(self) -> Self:
        if (self.decay_share is not None) != (self.schedule == "wsd"):
            raise ValueError("decay_share: required with schedule wsd, not allowed with cosine, linear, constant")
        return self

    def decay_steps(self, total_steps: int) -> int:
        """Return the steps of wsd's decay in a run of ``total_steps``."""
        assert self.decay_share is not None
        return round(self.decay_share * total_steps)

    def rate(self, step: int, total_steps: int) -> float:
        """Return the learning rate of a run's step (1 is the first) as a share of its peak, as the optimizer has it."""
        past = step - 1 - self.warmup_steps
        if past < 0:
            return (step - 1) / self.warmup_steps
        left = max(1, total_steps - self.warmup_steps)
        match self.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * past / left))
            case "linear":
                return max(0.0, 1 - past / left)
            case "wsd":
                decay = self.decay_steps(total_steps)
                return 1 - math.sqrt(max(0, past - left + decay) / max(1, decay))
        return 1.0

    def time(self, total_steps: int, after: int = 0) -> float:
        """Return how far a run's steps after ``after`` carry weights: each counts by its share of the peak rate."""
        return math.fsum(self.rate(step, total_steps) for step in range(after + 1, total_steps + 1))

    def accumulation_steps(self, processes: int) -> int:
        """Return the number of forward passes per process in one optimizer step.

        Raises:
            ConfigError: if the batch does not divide evenly among the processes.
        """
        together = self.micro_batch_size * processes
        if self.batch_size % together:
            raise ConfigError(
                f"training.batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} x {processes} processes"
            )
        return self.batch_size // together


class Draw(Section):
    """Samples that a model has been trained on."""

    mixture: dict[str, float] = Field(description="Corpus weights.")
    samples: Annotated[int, Field(ge=0)] = Field(description="Sequences drawn.")


class Distillation(Section):
    """Ours, not the paper's: the loss becomes (1 - share) cross entropy + share KL(teacher || student).

    The ledger's ``lm_loss`` is that sum.
    """

    teacher: Name = Field(description="A run: its last checkpoint under its own activation.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(description="Weight of the divergence.")


class Recipe(Section):
    """How a run trains, independent of its start and its data."""

    activation: Activation = Field(description="The gate's activation while it trains.")
    stages: list[Stage] = Field(min_length=1, description="λ(t), stage by stage.")
    training: Training = Field(description="Overrides of the experiment's training section.")

    @field_validator("activation", mode="before")
    @classmethod
    def activation_from_text(cls, value: Any) -> Any:
        return Activation.from_text(value)

    @model_validator(mode="after")
    def stages_in_order(self) -> Self:
        previous = Stage(until=1)
        if len(self.stages) > 1 and self.stages[0].until == 0:
            raise ValueError("stages.0.until is 0: allowed for a run's only stage")
        for index, stage in enumerate(self.stages):
            if index and stage.until <= previous.until:
                raise ValueError(
                    f"stages.{index}.until is {stage.until}: must be greater than stage {index - 1}'s {previous.until}"
                )
            if previous.target_sparsity is not None and (stage.target_sparsity or 0) < previous.target_sparsity:
                raise ValueError(
                    f"stages.{index}: stage {index - 1} has target_sparsity {previous.target_sparsity:g}, so this one "
                    f"needs a target_sparsity of at least {previous.target_sparsity:g} instead of a peak"
                )
            if stage.steered and self.activation.name == "silu":
                raise ValueError(
                    f"stages.{index}.target_sparsity: silu has no zeros to steer; allowed is any other activation"
                )
            if index and not stage.steered and stage.peak < previous.peak:
                raise ValueError(
                    f"stages.{index}.peak is {stage.peak:g}: peaks must not fall (before: {previous.peak:g})"
                )
            previous = stage
        return self

    @model_validator(mode="after")
    def warmup_ends_before_decay(self) -> Self:
        training, total = self.training, self.stages[-1].until
        if training.schedule == "wsd" and 0 < total < training.warmup_steps + training.decay_steps(total):
            raise ValueError(
                f"training.decay_share is {training.decay_share:g}: its {training.decay_steps(total)} steps and the "
                f"{training.warmup_steps} of the warm-up are more than the run's {total}"
            )
        return self


class Run(Recipe):
    """A chain of training stages from one starting point."""

    init: Init = Field(description="Where its weights come from.")
    mixture: Name = Field(description="A name in data.mixtures.")
    tokenizer: Name | None = Field(default=None, description="A name in data.tokenizers; default: the only one.")
    distillation: Distillation | None = Field(default=None, description="Learn from another run.")
    label: str | None = Field(
        default=None, description="How tables and figures name its method; default: by its stages and activation."
    )
