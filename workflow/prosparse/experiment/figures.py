"""Section ``figures``: which runs the figures draw."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from prosparse.experiment.section import Name, Section
from prosparse.published.frontier import METHODS


class Frontier(Section):
    """A model's original and the methods that make it sparse; a pair is ``run`` or ``run@activation``."""

    original: str = Field(description="The pair whose loss is drawn as a line.")
    methods: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        min_length=1,
        description=f"Method -> its pairs, joined by a line. The paper's points are labeled {', '.join(METHODS)}; "
        "the same label gets the same color.",
    )

    training_free: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[],
        description="Target sparsities of the original under thresholds without training (CATS, TEAL, CETT), a line "
        "each; also measured at 1% higher perplexity. Nothing else can use them.",
    )

    def pairs(self) -> list[str]:
        """Return every pair once, the original first."""
        return list(dict.fromkeys([self.original, *(pair for pairs in self.methods.values() for pair in pairs)]))


class Figures(Section):
    """Runs drawn in the paper's figures."""

    frontier: dict[str, Frontier] = Field(
        default={}, description="Loss over sparsity: label of a model, as readers know it -> what its panel draws."
    )
    schedule: list[Name] = Field(default=[], description="Figure 1: λ(t).")
    sparsity_curves: list[Name] = Field(default=[], description="Figure 2: sparsity over training.")
    final_factor: list[Name] = Field(default=[], description="Figure 3: runs resumed with a constant λ_S.")

    def frontier_pairs(self) -> list[str]:
        """Return every pair of every model's frontier once."""
        return list(dict.fromkeys(pair for frontier in self.frontier.values() for pair in frontier.pairs()))
