"""A mean with its 95% confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error and the error's degrees of freedom.

    An infinite error says that the interval is unknown: a single seed shows nothing about another.
    """

    mean: float
    error: float = 0.0
    freedom: float = math.inf

    @property
    def half_width(self) -> float:
        """Half of the 95% interval, by Student's t."""
        if self.error == 0 or math.isinf(self.error):
            return self.error
        from scipy.special import stdtrit

        # stdtrit has no infinite degrees of freedom; beyond a million, t is the normal distribution
        return self.error * float(stdtrit(min(self.freedom, 1e6), (1 + CONFIDENCE) / 2))

    @property
    def lower(self) -> float:
        return self.mean - self.half_width

    @property
    def upper(self) -> float:
        return self.mean + self.half_width

    @property
    def known(self) -> bool:
        """Whether the error could be estimated."""
        return math.isfinite(self.error)

    def __neg__(self) -> Estimate:
        return Estimate(-self.mean, self.error, self.freedom)

    def show(self, digits: int, sign: bool = False) -> str:
        """Format as ``0.031 (95% interval 0.025 to 0.037)``."""
        plus = "+" if sign else ""
        if not self.known:
            return f"{self.mean:{plus}.{digits}f} (no interval)"
        if self.error == 0:
            return f"{self.mean:{plus}.{digits}f}"
        number, lower, upper = (f"{each:{plus}.{digits}f}" for each in (self.mean, self.lower, self.upper))
        return f"{number} (95% interval {lower} to {upper})"


def mean_of_draws(draws: Sequence[float]) -> Estimate:
    """Estimate the mean of independent draws; its error is unknown for a single one."""
    count = len(draws)
    mean = math.fsum(draws) / count
    if count < 2:
        return Estimate(mean, math.inf)
    variance = math.fsum((draw - mean) ** 2 for draw in draws) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count), count - 1)


def sum_of(estimates: Sequence[Estimate]) -> Estimate:
    """Add independent estimates; degrees of freedom by Welch and Satterthwaite."""
    variances = [estimate.error**2 for estimate in estimates]
    total = math.fsum(variances)
    mean = math.fsum(estimate.mean for estimate in estimates)
    if total == 0 or math.isinf(total):
        return Estimate(mean, math.sqrt(total))
    shares = math.fsum(v**2 / e.freedom for v, e in zip(variances, estimates, strict=True))
    return Estimate(mean, math.sqrt(total), total**2 / shares if shares else math.inf)
