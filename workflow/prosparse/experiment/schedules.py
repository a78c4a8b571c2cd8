"""Section ``schedules``: methods compared at equal sparsity. Ours, not the paper's."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from prosparse.experiment.section import Section, check_known


class Comparison(Section):
    """Methods that differ in how λ and the learning rate change over training; a pair is ``run`` or ``run@activation``.

    A method's loss at a sparsity is interpolated between its own pairs, which differ in λ.
    """

    title: str = Field(description="What is compared, on which model.")
    reference: str = Field(description="The method that the others are compared with.")
    methods: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        min_length=2, description="Method -> its pairs, in any order."
    )

    @model_validator(mode="after")
    def reference_is_a_method(self) -> Self:
        check_known(self.reference, self.methods, "reference")
        return self

    def pairs(self) -> list[str]:
        """Return every pair once."""
        return list(dict.fromkeys(pair for pairs in self.methods.values() for pair in pairs))


class Schedules(Section):
    """Comparisons of schedules, for the table and the figure of that name."""

    sparsities: list[Annotated[float, Field(gt=0, lt=100)]] = Field(
        default=[80, 90, 95],
        min_length=1,
        description="Percent at which methods are compared. Dead neurons and the least sparse layer are shown at the "
        "middle one.",
    )
    comparisons: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], Comparison] = Field(
        default={}, description="Comparisons by name: `snakemake schedules_NAME` measures what one of them needs."
    )

    @model_validator(mode="after")
    def sparsities_rise(self) -> Self:
        if self.sparsities != sorted(set(self.sparsities)):
            raise ValueError("sparsities must rise")
        return self

    def pairs(self) -> list[str]:
        """Return every pair of every comparison once."""
        return list(dict.fromkeys(pair for each in self.comparisons.values() for pair in each.pairs()))
