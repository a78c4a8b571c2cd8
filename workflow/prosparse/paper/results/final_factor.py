"""Final sparsity over the last stage's lambda: the points of Figure 3 and claim 5."""

from __future__ import annotations

from typing import Any

from prosparse.paper.results.reader import Results


def final_points(results: Results) -> list[dict[str, Any]]:
    """(lambda_S, sparsity in percent) of each ``figures.final_factor`` run, under its own activation."""
    points = []
    for name in results.experiment.figures.final_factor:
        run = results.experiment.runs[name]
        measured = results.sparsity(name, run.activation).sparsity
        points.append(
            {
                "run": name,
                "lambda": run.stages[-1].peak,
                "sparsity": measured.mean,
                "spread": measured.spread,
                "series": "Ours, measured",
            }
        )
    return points
