"""Section ``calibration``: how a model's λ follows from the paper's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from prosparse.experiment.section import Name, Section

Positive = Annotated[float, Field(gt=0)]

#: Rows of a probe's ledger before this share of its time are not used: sparsity still jumps.
SETTLING = 0.25
#: Rows after that, to fit a line to.
FEWEST_MEASUREMENTS = 3


class Calibration(Section):
    """Short runs at constant λ, which determine the multiplier of the paper's λ.

    Until they have run, no stage with λ above 0 is trained in the runs of the model: those that start, directly or
    through other runs, from the same original.
    """

    run: Name = Field(
        description="The probes continue its stage 0, which has no λ, at its peak learning rate. The number of its "
        "later steps is the length of a full run."
    )
    probes: list[Positive] = Field(min_length=2, description="Their λ, rising: from too small to too large.")
    steps: Annotated[int, Field(ge=20)] = Field(description="Steps of each probe: a fifth of a full run or more.")
    multiplier: Positive | None = Field(
        default=None,
        description="Default: what `snakemake calibrate` finds. A number says that the peaks in this file are final.",
    )

    @field_validator("probes")
    @classmethod
    def probes_rise(cls, probes: list[float]) -> list[float]:
        if probes != sorted(set(probes)):
            raise ValueError("must rise")
        return probes
