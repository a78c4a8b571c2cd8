"""A quantity of a pair, row by row and seed by seed, so that differences are paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prosparse.paper.statistics.estimate import Estimate, mean_of_draws, sum_of


@dataclass(frozen=True)
class Stratum:
    """Rows drawn from one corpus or benchmark: its weight in the mean, and the values ``[seeds, rows]``."""

    weight: float
    values: Any  # numpy.ndarray; numpy is imported where it is used


@dataclass(frozen=True)
class Sample:
    """One quantity of a pair, or a linear combination of several pairs'.

    Attributes:
        strata: by name; the weights of a mean sum to 1, those of a contrast to 0.
        runs: the trained runs that it depends on.
        assumed: the standard deviation over seeds of a difference between runs, for a sample of a single seed;
            None if unknown.
    """

    strata: dict[str, Stratum]
    runs: frozenset[str]
    assumed: float | None = None

    @property
    def by_seed(self) -> list[float]:
        """The weighted mean over rows, per seed."""
        seeds = len(next(iter(self.strata.values())).values)
        return [
            float(sum(stratum.weight * stratum.values[seed].mean() for stratum in self.strata.values()))
            for seed in range(seeds)
        ]

    @property
    def mean(self) -> float:
        means = self.by_seed
        return sum(means) / len(means)

    def times(self, factors: Sequence[float] | float) -> Sample:
        """Multiply by a number, or by one number per seed."""
        import numpy

        column = numpy.reshape(numpy.asarray(factors, float), (-1, 1))
        strata = {name: Stratum(each.weight, each.values * column) for name, each in self.strata.items()}
        return Sample(strata, self.runs, self.assumed)

    def plus(self, other: Sample) -> Sample:
        """Add row by row and seed by seed.

        Raises:
            ValueError: if the two were not measured on the same rows and seeds.
        """
        shapes = [{name: each.values.shape for name, each in sample.strata.items()} for sample in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError("samples of other rows or seeds cannot be paired")
        strata = {
            name: Stratum(each.weight, each.values + other.strata[name].values) for name, each in self.strata.items()
        }
        return Sample(strata, self.runs | other.runs, self.assumed)

    def minus(self, other: Sample) -> Sample:
        """Subtract row by row and seed by seed."""
        return self.plus(other.times(-1))

    def estimate(self) -> Estimate:
        """Estimate the mean over other rows of the same kinds and over other seeds.

        The two errors add: that over rows, of the values averaged over seeds (every seed has the same rows), and that
        over seeds. What is specific to a row and a seed is in both, so the interval is slightly too wide. With one
        seed, what involves a single run is an estimate for that run, and what compares runs takes the assumed
        deviation, or has no interval.
        """
        over_rows = sum_of(
            [_scaled(mean_of_draws(each.values.mean(axis=0).tolist()), each.weight) for each in self.strata.values()]
        )
        return sum_of([over_rows, self._over_seeds()])

    def _over_seeds(self) -> Estimate:
        means = self.by_seed
        if len(means) > 1:
            return Estimate(0.0, mean_of_draws(means).error, len(means) - 1)
        if len(self.runs) < 2:
            return Estimate(0.0)
        return Estimate(0.0, float("inf") if self.assumed is None else self.assumed)


def _scaled(estimate: Estimate, weight: float) -> Estimate:
    return Estimate(weight * estimate.mean, weight * estimate.error, estimate.freedom)
