"""An operator's time as a line over density: a fixed part plus a slope."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from prosparse.paper.results.operators import STEPS, Case
from prosparse.published.settings import settings


@dataclass(frozen=True)
class Line:
    """time = fixed + slope x density, in us. Errors are standard errors, None for two points."""

    fixed: float
    slope: float
    fixed_error: float | None
    slope_error: float | None
    points: int

    def at(self, density: float) -> float:
        return self.fixed + self.slope * density


def line(densities: Sequence[float], microseconds: Sequence[float]) -> Line | None:
    """Fit a line by least squares; None if the points do not determine one."""
    if len(set(densities)) < 2:
        return None
    slope, fixed = statistics.linear_regression(densities, microseconds)
    number, middle = len(densities), statistics.fmean(densities)
    if number < 3:
        return Line(fixed, slope, None, None, number)
    residuals = [t - fixed - slope * d for d, t in zip(densities, microseconds, strict=True)]
    deviation = math.sqrt(math.fsum(r * r for r in residuals) / (number - 2))
    width = math.fsum((d - middle) ** 2 for d in densities)
    fixed_error = deviation * math.sqrt(1 / number + middle**2 / width)
    return Line(fixed, slope, fixed_error, deviation / math.sqrt(width), number)


def published_line(scale: str, step: int) -> Line | None:
    """Fit a line to the paper's sparse rows of a scale."""
    rows = [setting for setting in settings() if setting.scale == scale and not setting.is_dense]
    return line([row.density for row in rows], [row.microseconds(step) for row in rows])


def densest_fitted() -> float:
    """Return the density of the paper's densest sparse row: our lines are fitted over the same range."""
    return max(setting.density for setting in settings() if not setting.is_dense)


def measured_line(cases: Sequence[Case], step: int, protocol: str) -> Line | None:
    """Fit a line to a scale's cases that are no denser than the paper's."""
    fitted = [case for case in cases if case.density < densest_fitted() + 1 / case.intermediate_size]
    arm = f"sparse_{STEPS[step]}"
    return line([case.density for case in fitted], [case.microseconds(arm, protocol).median for case in fitted])
