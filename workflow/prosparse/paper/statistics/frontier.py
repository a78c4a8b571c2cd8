"""Interpolate between the points of a frontier, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from prosparse.paper.statistics.sample import Sample


@dataclass(frozen=True)
class Between:
    """A place between two neighboring points.

    Attributes:
        left, right: names of the points.
        shares: of the way from left (0) to right (1), per seed. Neighbors are those of the means over seeds, so a seed
            may lie slightly outside.
    """

    left: str
    right: str
    shares: tuple[float, ...]

    def sample(self, points: Mapping[str, Sample]) -> Sample:
        """Interpolate a quantity of every point linearly, row by row and seed by seed."""
        return points[self.left].times([1 - share for share in self.shares]).plus(points[self.right].times(self.shares))

    def by_seed(self, points: Mapping[str, Sequence[float]]) -> list[float]:
        """Interpolate a number per seed linearly."""
        ends = zip(points[self.left], points[self.right], self.shares, strict=True)
        return [(1 - share) * left + share * right for left, right, share in ends]


def between(points: Mapping[str, Sequence[float]], at: Sequence[float], beyond: float = 0) -> Between | None:
    """Find the neighbors of a place; None if it lies outside the range of the points' means.

    Args:
        points: position of each point, per seed.
        at: the place, per seed.
        beyond: so far outside the range, the neighbors are the two nearest points. A single point that near is taken
            as it is.
    """
    means = {name: fmean(values) for name, values in points.items()}
    least, greatest = min(means.values()), max(means.values())
    if not least - beyond <= fmean(at) <= greatest + beyond:
        return None
    if len(points) == 1 and beyond:
        (only,) = points
        return Between(only, only, (0.0,) * len(at))
    nearest = min(max(fmean(at), least), greatest)
    for left, right in pairwise(sorted(points, key=means.__getitem__)):
        if means[left] <= nearest <= means[right]:
            ends = zip(points[left], at, points[right], strict=True)
            return Between(left, right, tuple((x - a) / (b - a) if b != a else 0.0 for a, x, b in ends))
    return None
