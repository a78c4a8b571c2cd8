"""A measured number: one value per seed, with its errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One number per seed, and its sampling error if it has one (benchmark scores)."""

    seeds: tuple[float, ...]
    errors: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return statistics.fmean(self.seeds)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None for a single seed."""
        return statistics.stdev(self.seeds) if len(self.seeds) > 1 else None

    @property
    def standard_error(self) -> float | None:
        """Sampling error over benchmark rows. Every seed answers the same rows, so averaging does not shrink it."""
        return statistics.fmean(self.errors) if self.errors else None

    @property
    def total_error(self) -> float:
        """Sampling error and the error of the mean over seeds, in quadrature; 0 if neither is known."""
        return math.hypot(self.standard_error or 0.0, (self.spread or 0.0) / math.sqrt(len(self.seeds)))

    def minus(self, other: Value) -> Value:
        """Subtract seed by seed; errors add in quadrature (conservative: both answer the same rows)."""
        errors = tuple(math.hypot(a, b) for a, b in zip(self.errors, other.errors, strict=False))
        return Value(tuple(a - b for a, b in zip(self.seeds, other.seeds, strict=True)), errors)


def mean_of(values: Sequence[Value]) -> Value:
    """Return the unweighted mean, seed by seed; independent errors add in quadrature."""
    errors: tuple[float, ...] = ()
    if all(value.errors for value in values):
        columns = zip(*(value.errors for value in values), strict=True)
        errors = tuple(math.sqrt(math.fsum(e * e for e in column)) / len(values) for column in columns)
    seeds = zip(*(value.seeds for value in values), strict=True)
    return Value(tuple(statistics.fmean(column) for column in seeds), errors)


def exact(number: float) -> Value:
    """Wrap a number that the config fixes, without spread or error."""
    return Value((float(number),))
