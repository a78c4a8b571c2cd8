"""How much two runs of one experiment may differ, by processor and by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prosparse.paper.results.value import Value

#: Seeds spread a difference of means by more than this many standard deviations once in twenty.
DEVIATIONS = 2


@dataclass(frozen=True)
class Between:
    """Absolute differences between two processors, in the quantity's unit."""

    largest: float
    median: float | None = None


@cache
def between_processors() -> dict[str, Between]:
    """Return the measured spread of each quantity (``between_processors.yaml``)."""
    import yaml

    path = Path(__file__).with_name("between_processors.yaml")
    return {name: Between(**entry) for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def by_seed(ours: dict[int, float], published: dict[int, float]) -> float | None:
    """Return the standard deviation over seeds of the difference of two means, each over its values by seed.

    Both sides share one standard deviation over seeds, s. The difference is a weighted sum over all seeds, with weights
    1/n for our n seeds minus 1/m for the published m, so its deviation is s times the root of the summed squared
    weights. A seed on both sides cancels as far as its weights do: equal sets of seeds leave what processors differ by.

    Returns:
        None if the seeds differ and neither side has several, from which s could be estimated.
    """
    weights = {
        seed: (seed in ours) / len(ours) - (seed in published) / len(published) for seed in ours.keys() | published
    }
    if not any(weights.values()):
        return 0.0
    sides = [Value(tuple(side.values())) for side in (ours, published)]
    freedom = sum(len(side.seeds) - 1 for side in sides)
    if not freedom:
        return None
    squares = math.fsum((value - side.mean) ** 2 for side in sides for value in side.seeds)
    return math.sqrt(squares / freedom * math.fsum(weight**2 for weight in weights.values()))
