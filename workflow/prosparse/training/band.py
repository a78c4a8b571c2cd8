"""The band of sparsity that a stage is expected to stay in; outside it, training stops"""

from __future__ import annotations

from statistics import fmean

from prosparse.method.schedule import stage_at
from prosparse.system.errors import UserError
from prosparse.training import ledger
from prosparse.training.job import StageJob


class OutOfBand(UserError):
    """Sparsity has left the stage's band. The last checkpoint is kept, and another band continues from it."""


def left(job: StageJob, step: int) -> str | None:
    """Say how sparsity has left the stage's band by a step, judging by the ledger; None if it has not.

    Sparsity is the mean of the ledger's rows in the last tenth of the stage's steps, at least the last row. The first
    half of the stage is not judged, since sparsity is still changing there.
    """
    if job.expected_sparsity is None:
        return None
    low, high = job.expected_sparsity
    _, start = stage_at(job.specification.stages, job.last_step)
    steps = job.last_step - start
    rows = ledger.read(job.ledger, step)
    if not rows or int(rows[-1]["step"]) <= start + steps // 2:
        return None
    until = int(rows[-1]["step"])
    since = min(until, until - steps // 10 + 1)
    sparsity = fmean(float(row["sparsity"]) for row in rows if int(row["step"]) >= since)
    if low <= sparsity <= high:
        return None
    stage = job.specification.stages[-1]
    if stage.target_sparsity is not None:
        reason = f"λ is steered to {100 * stage.target_sparsity:g}%, which the model does not follow in these steps"
    elif stage.regularized:
        reason = f"λ is too {'large' if sparsity > high else 'small'} for this model (docs/cluster.md, Calibration)"
    else:
        reason = "without λ, it depends on the run's start, activation and data"
    where = f"step {until:,}" if since == until else f"steps {since:,} to {until:,}"
    return (
        f"sparsity is {100 * sparsity:.2f}% in {where}, outside the stage's expected_sparsity, {100 * low:g}% to "
        f"{100 * high:g}%: {reason}, or the band is wrong. The last checkpoint is kept: with another "
        "expected_sparsity, the same command continues from it"
    )
