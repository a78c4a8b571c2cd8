"""The numbers of two runs of one experiment, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from prosparse.paper.compare.spread import DEVIATIONS, between_processors, by_seed
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.value import Value

#: Quantity -> the unit of its differences.
UNITS = {"sparsity": "points", "loss": "nats per token", "average performance": "points"}


@dataclass(frozen=True)
class Difference:
    """A number of ours and the published one: means over the seeds of each side."""

    pair: str
    quantity: str
    ours: float
    published: float
    same_seed: float  # the largest expected difference between processors of runs of one seed
    by_seed: float | None  # standard deviation of the difference over seeds; None if unknown

    @property
    def value(self) -> float:
        return self.ours - self.published

    @property
    def expected(self) -> float:
        """The largest expected difference: between processors, and ``DEVIATIONS`` deviations over seeds."""
        return self.same_seed + DEVIATIONS * (self.by_seed or 0.0)

    @property
    def within(self) -> bool:
        return abs(self.value) <= self.expected

    @property
    def times_expected(self) -> float:
        """How large the difference is in units of the expected one."""
        if self.expected:
            return abs(self.value) / self.expected
        return math.inf if self.value else 0.0


@dataclass(frozen=True)
class Compared:
    """Every difference, and the numbers (pair, quantity) that one side lacks."""

    differences: list[Difference]
    only_ours: list[tuple[str, str]]
    only_published: list[tuple[str, str]]

    @property
    def beyond(self) -> list[Difference]:
        """The differences beyond the expected spread, worst first."""
        return sorted((each for each in self.differences if not each.within), key=lambda each: -each.times_expected)


def compare(ours: Results, published: Results, needs: Needs) -> Compared:
    """Compare what both sides measured of ``needs``."""
    ours_measured, published_measured = dict(_measured(ours, needs)), dict(_measured(published, needs))
    both = [key for key in ours_measured if key in published_measured]
    seeds = ours.experiment.seeds, published.experiment.seeds
    return Compared(
        [_difference(key, ours_measured[key], published_measured[key], seeds) for key in both],
        [key for key in ours_measured if key not in published_measured],
        [key for key in published_measured if key not in ours_measured],
    )


def _difference(key: tuple[str, str], ours: Value, published: Value, seeds: tuple[list[int], list[int]]) -> Difference:
    pair, quantity = key
    if quantity in between_processors():
        same_seed = between_processors()[quantity].largest
    else:  # not measured: models that differ by rounding answer rows differently at random
        same_seed = 2 * math.hypot(ours.standard_error or 0.0, published.standard_error or 0.0)
    spread = by_seed(*(dict(zip(s, v.seeds, strict=True)) for s, v in zip(seeds, (ours, published), strict=True)))
    return Difference(pair, quantity, ours.mean, published.mean, same_seed, spread)


def _measured(results: Results, needs: Needs) -> Iterator[tuple[tuple[str, str], Value]]:
    """Yield ((pair, quantity), value) of everything measured, except for averages without a known sampling error."""
    for run in sorted(needs.sparsity):
        for activation in results.activations(run):
            found = results.sparsity(run, activation)
            yield (f"{run}@{activation}", "sparsity"), found.sparsity
            yield (f"{run}@{activation}", "loss"), found.loss
    for run, activation in sorted(needs.benchmarks):
        try:
            average = results.benchmarks(run, activation).average().value
        except MissingResult:
            continue
        if average is not None and average.errors:
            yield (f"{run}@{activation}", "average performance"), average
