"""The median and quartiles of repeated measurements.

The committed results of `laptop` and `smollm2` date from when operators and overhead still used exclusive quartiles
(type 6), which lie slightly further apart; their ``operators.json`` and ``overhead.json`` keep those values.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """``median``, ``lower_quartile`` and ``upper_quartile``; for a single value, all three equal it.

    Interpolates linearly between order statistics with both ends included, like the default of numpy's ``quantile``
    (Hyndman and Fan's type 7), so quartiles never lie outside the measurements.
    """
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}
