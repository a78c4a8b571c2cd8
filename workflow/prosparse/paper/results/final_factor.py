"""A run's last lambda, and final sparsity over it: the points of Figure 3 and claim 5"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value, exact


def final_factor_needs(experiment: Experiment, runs: Iterable[str]) -> Needs:
    """Return what ``final_factor`` reads for these runs: the last stages that have a target instead of a lambda."""
    last = {run: len(experiment.runs[run].stages) - 1 for run in runs}
    steered = {run for run in last if experiment.runs[run].stages[-1].steered}
    return Needs(stages={(run, last[run]) for run in steered})


def final_factor(results: Results, run: str) -> Value:
    """Return lambda at a run's end: its last stage's peak, or where a target led it, as measured.

    Raises:
        MissingResult: if the last stage has a target and is not trained.
    """
    stages = results.experiment.runs[run].stages
    return stage_factor(results, run, len(stages) - 1)


def stage_factor(results: Results, run: str, index: int) -> Value:
    """Return lambda at the end of a run's stage; raises as ``final_factor``."""
    stage = results.experiment.runs[run].stages[index]
    if not stage.steered:
        return exact(stage.peak)
    return Value(tuple(record["final"]["lambda"] for record in results.stage(run, index)))


def final_points(results: Results) -> list[dict[str, Any]]:
    """(lambda_S, sparsity in percent) of each ``figures.final_factor`` run, under its own activation."""
    points = []
    for name in results.experiment.figures.final_factor:
        run = results.experiment.runs[name]
        measured = results.sparsity(name, run.activation).sparsity
        points.append(
            {
                "run": name,
                "lambda": run.stages[-1].peak,  # no target: validated
                "sparsity": measured.mean,
                "spread": measured.spread,
                "series": "Ours, measured",
            }
        )
    return points
