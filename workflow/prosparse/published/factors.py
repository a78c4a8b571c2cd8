"""The paper's λ and the sparsity that a full run reaches with it, per model"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from prosparse.published.tables import FIGURE3_FIT, SCALES, published_table


@dataclass(frozen=True)
class Reference:
    """Figure 3's curve with its λ multiplied by ``strength``, so that it passes through what is published of a model.

    Attributes:
        factor: the paper's λ_S, the last before supervised fine-tuning.
        strength: geometric mean over ``points``.
        points: (λ, sparsity in percent) of full runs with ReLU.
    """

    factor: float
    strength: float
    points: tuple[tuple[float, float], ...]

    def sparsity(self, factor: float) -> float:
        """Return the sparsity in percent that a full run at a constant λ reaches."""
        a, b, c = FIGURE3_FIT
        return 100 - math.exp(a * (self.strength * factor) ** b + c)

    def factor_of(self, sparsity: float) -> float | None:
        """Return the λ that leads to a sparsity in percent; None below what the curve has at λ = 0."""
        found = _figure3_factor(sparsity)
        return None if found is None else found / self.strength


@cache
def reference(scale: str) -> Reference:
    """Return the reference of ``7B``, ``13B`` or ``1B``.

    For the LLaMAs, the points are Table 5's constant λ, less what FATReLU adds to ProSparse's sparsity in Table 1. For
    MiniCPM, the only point is ProSparse's, which was measured after supervised fine-tuning with a smaller λ.
    """
    measured = {row["setting"]: float(row["average_sparsity"] or 0) for row in published_table("table1_overall")}
    _, plain, shifted = (measured[setting] for setting in SCALES[scale])  # type: ignore[index]
    stages = [row for name in ("table6_stages_llama2", "table7_stages_minicpm") for row in published_table(name)]
    last = [row for row in stages if row["model"] == scale and row["stage"] != "sft"][-1]
    factor = float(last["lambda"])
    points = tuple(
        (float(row["lambda"]), float(row["average_sparsity"]) - (shifted - plain))
        for row in published_table("table5_constant_factor")
        if row["scale"] == scale and row["lambda"] != "ProSparse"
    ) or ((factor, plain),)
    ratios = [(_figure3_factor(sparsity) or math.nan) / of for of, sparsity in points]
    return Reference(factor, math.exp(math.fsum(map(math.log, ratios)) / len(ratios)), points)


def _figure3_factor(sparsity: float) -> float | None:
    a, b, c = FIGURE3_FIT
    above = (math.log(100 - sparsity) - c) / a if sparsity < 100 else math.inf
    return above ** (1 / b) if above > 0 else None
