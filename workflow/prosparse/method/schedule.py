"""The regularization factor lambda(t) over typed stages (paper, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prosparse.experiment.training import Stage


def stage_at(stages: Sequence[Stage], step: float) -> tuple[int, int]:
    """Return the index of the stage that a step belongs to (1 is the first), and the step after which it starts.

    Raises:
        ValueError: the step is outside (0, T_S].
    """
    start = 0
    for index, stage in enumerate(stages):
        if start < step <= stage.until:
            return index, start
        start = stage.until
    raise ValueError(f"step {step} lies outside the schedule's (0, {start}]")


def steered_at(stages: Sequence[Stage], step: int) -> bool:
    """Whether a step belongs to a stage with a target; raises as :func:`stage_at`."""
    return stages[stage_at(stages, step)[0]].steered


def factor(stages: Sequence[Stage], step: float) -> float:
    """Return lambda at accumulated optimizer step ``step`` (1 is the first).

    A constant stage holds its peak over (T_{i-1}, T_i]. A sine stage rises from the previous stage's peak to its own
    along half a sine period:

        l_{i-1} + 1/2 (sin(-pi/2 + pi (t - T_{i-1}) / (T_i - T_{i-1})) + 1) (l_i - l_{i-1})

    A linear stage rises along a line. The first stage rises from l_0 = 0. Both are ours, not the paper's.

    Raises:
        ValueError: the step is outside (0, T_S], or its stage has a target, whose lambda only the ledger knows.
    """
    index, start = stage_at(stages, step)
    stage, previous = stages[index], stages[index - 1].peak if index else 0.0
    if stage.steered:
        raise ValueError(f"step {step} belongs to stage {index}, which steers lambda to a target sparsity")
    if stage.shape == "constant":
        return stage.peak
    if stage.shape == "linear":
        return previous + (step - start) / (stage.until - start) * (stage.peak - previous)
    phase = -math.pi / 2 + math.pi * (step - start) / (stage.until - start)
    return previous + 0.5 * (math.sin(phase) + 1) * (stage.peak - previous)
