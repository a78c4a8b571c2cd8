"""How long stages take, and how many cluster jobs each needs."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping

from prosparse.experiment.experiment import Experiment
from prosparse.plan.costs import gpu_hours
from prosparse.plan.jobs import Job
from prosparse.plan.text import hour_count, item
from prosparse.training.launch import time_budget

#: Hours that the profiles give a training job.
PROFILE_HOURS = 24.0


def stage_hours(experiment: Experiment, job: Job) -> float | None:
    """Return a stage's wall time on the hardware's GPUs; None if its cost is unknown or nothing."""
    if experiment.hardware is None or not job.flops or job.stage is None:
        return None
    hours = gpu_hours(experiment, job.flops + (job.recomputed or 0))
    return None if hours is None else hours / experiment.hardware.gpus


def jobs_of(hours: float, limit: float) -> int:
    """Return how many jobs of ``limit`` hours a stage needs, each with its time for starting and saving."""
    budget = time_budget(round(60 * limit))
    assert budget
    return math.ceil(3600 * hours / budget)


def partition_limits() -> dict[str, float]:
    """Return the hours that Slurm's partitions allow a job, infinite ones included; empty without Slurm."""
    if shutil.which("sinfo") is None:
        return {}
    rows = subprocess.run(
        ["sinfo", "--noheader", "--format=%R %l"], capture_output=True, text=True, encoding="utf-8"
    ).stdout.split()
    return {name: hours(text) for name, text in zip(rows[::2], rows[1::2], strict=True)}


def hours(text: str) -> float:
    """Return the hours of a time as sinfo prints it: ``days-hours:minutes:seconds`` or ``infinite``."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return math.inf
    days, hour, minutes, seconds = (int(part or 0) for part in found.groups())
    return 24 * days + hour + minutes / 60 + seconds / 3600


def lines(experiment: Experiment, listed: Iterable[Job], limits: Mapping[str, float]) -> list[str]:
    """Show each run's longest stage that is still to do, and how many jobs it needs."""
    if experiment.hardware is None:
        return ["Unknown: the experiment has no `hardware:`."]
    longest: dict[str, tuple[float, int | None]] = {}
    for job in listed:
        if not job.done and (time := stage_hours(experiment, job)) is not None:
            longest[job.run] = max(longest.get(job.run, (0.0, None)), (time, job.stage))
    if not longest:
        return ["No stage is left to do."]
    shown = [f"jobs of {PROFILE_HOURS:g} hours, as the profiles ask for", *_limited(limits)]
    found = item(
        f"On {experiment.hardware.gpus} x {experiment.hardware.gpu}; {'; '.join(shown)}. A stage continues in the "
        "next job where it stopped."
    )
    for run, (time, stage) in sorted(longest.items(), key=lambda each: -each[1][0]):
        number = jobs_of(time, PROFILE_HOURS)
        found += item(f"{run}: stage {stage} takes {hour_count(time)} hours: {number} job{'s' if number > 1 else ''}")
    return found


def _limited(limits: Mapping[str, float]) -> list[str]:
    """Name the partitions that allow less than the profiles ask for."""
    return [
        f"partition {name} allows {hour_count(limit)}: lower `runtime` in the profile to use it"
        for name, limit in limits.items()
        if limit < PROFILE_HOURS
    ]
