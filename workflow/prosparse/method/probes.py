"""Predict full runs at constant lambda from short ones (ours)

After lambda is switched on, density = 1 - sparsity falls as a power of the time since, with each step weighted by its
share of the peak learning rate::

    ln density = u - p ln time

So a probe's ledger, extrapolated along this line, gives the sparsity at the end of a full run, for any decay of its
learning rate.

In the paper's Figure 3, ln density is linear in lambda^0.30. We interpolate between two probes in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import linear_regression

from prosparse.experiment.calibration import FEWEST_MEASUREMENTS, SETTLING


def settled(times: Sequence[float], sparsities: Sequence[float], full_time: float) -> float:
    """Return the sparsity in percent that a full run would reach.

    Args:
        times: of a probe's measurements, rising, in steps at the peak learning rate.
        sparsities: in percent.
        full_time: of the full run, likewise.

    Raises:
        ValueError: on fewer than three measurements after the first quarter of the probe, or one without any active
            neuron.
    """
    used = [(t, s) for t, s in zip(times, sparsities, strict=True) if t >= SETTLING * times[-1]]
    if len(used) < FEWEST_MEASUREMENTS:
        raise ValueError(
            f"{len(used)} measurements after its first quarter, at least {FEWEST_MEASUREMENTS} are needed: log more "
            "often"
        )
    if any(sparsity >= 100 for _, sparsity in used):
        raise ValueError("no neuron is active: choose a smaller λ")
    slope, intercept = linear_regression(
        [math.log(time) for time, _ in used], [math.log(100 - sparsity) for _, sparsity in used]
    )
    return 100 - min(100.0, math.exp(intercept + slope * math.log(full_time)))


def factor_of(curve: Mapping[float, float], sparsity: float, exponent: float) -> float | None:
    """Return the lambda that leads to a sparsity in percent; None if no two neighboring probes enclose it.

    Args:
        curve: lambda -> sparsity in percent, below 100.
        exponent: ln density is linear in lambda to this power between neighbors.
    """
    wanted = math.log(100 - sparsity)
    for (low, below), (high, above) in pairwise(sorted(curve.items())):
        if below <= sparsity <= above and below < above:
            first, last = math.log(100 - below), math.log(100 - above)
            share = (first - wanted) / (first - last)
            return ((1 - share) * low**exponent + share * high**exponent) ** (1 / exponent)
    return None
