"""Figure 1: the regularization factor lambda(t) over training."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.training import Stage
from prosparse.method.schedule import factor
from prosparse.paper.figures.chart import HEIGHT, Drawn, chart_title, import_altair, ours_of, series_color
from prosparse.paper.results.labels import run_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.tables import published_table


def needs(experiment: Experiment) -> Needs:
    return Needs.of_chains(experiment, [run for run in experiment.figures.schedule if _steered(experiment, run)])


def build(results: Results) -> Drawn:
    alt = import_altair()
    experiment = results.experiment
    panels, data = [], []
    for name, runs in (("ours", experiment.figures.schedule), ("published", ["7B", "13B", "1B"])):
        rows: list[dict[str, Any]] = []
        for run in runs:
            if name == "ours":
                rows += [{"run": run, **row} for row in _ours(results, run)]
            else:
                rows += _sampled(published_stages(run), run, 1e-3)
        if not rows:
            continue
        data += [{"panel": name, **row} for row in rows]
        title = "Ours" if name == "ours" else "Published (Tables 6 and 7)"
        unit = "Accumulated steps" if name == "ours" else "Accumulated steps (thousands)"
        panels.append(
            alt.Chart(alt.Data(values=rows))
            .mark_line(strokeWidth=2.5)
            .encode(
                x=alt.X("progress:Q", title=unit),
                y=alt.Y("lambda:Q", title="λ(t)", axis=alt.Axis(format="~g")),
                **series_color(list(dict.fromkeys(row["series"] for row in rows)), columns=1 if name == "ours" else 4),
            )
            .properties(width=380, height=HEIGHT, title=alt.TitleParams(title, fontSize=14))
        )
    schedule = experiment.figures.schedule
    ours = ours_of(results, schedule) if schedule else "Ours: missing; the experiment names no run for this figure."
    chart = (
        alt.hconcat(*panels, spacing=40)
        .resolve_scale(color="independent", strokeDash="independent")
        .properties(
            title=chart_title(
                results,
                "Figure 1. Regularization factor λ(t) over training",
                ours,
                "The two panels normalize λ differently: ours multiplies the mean of |x1| over tokens and d_ff, summed "
                "over layers; the paper does not state its normalization.",
                wrap=165 if schedule else 80,
            )
        )
    )
    return chart, {"data": data}


def _steered(experiment: Experiment, run: str) -> bool:
    return any(stage.steered for stage in experiment.runs[run].stages)


def _ours(results: Results, run: str) -> list[dict[str, Any]]:
    """Return lambda by formula up to the first stage with a target; from there, as the ledger has it."""
    stages, label = results.experiment.runs[run].stages, run_label(results.experiment, run)
    first = next((index for index, stage in enumerate(stages) if stage.steered), len(stages))
    rows = _sampled(stages[:first], label, 1.0)
    if first < len(stages):
        measured = [entry for entry in results.ledger(run) if entry.stage >= first]
        rows += [{"series": label, "progress": entry.step, "lambda": entry.factor} for entry in measured]
    return rows


def _sampled(stages: list[Stage], label: str, unit: float) -> list[dict[str, Any]]:
    """Sample lambda over progress, on both sides of every jump so that a constant stage is drawn flat."""
    rows: list[dict[str, Any]] = []
    start = 0
    for stage in stages:
        if stage.until == start:  # not trained: no lambda
            continue
        # just after the previous stage's last step, then evenly to this stage's last
        steps = [start + 1e-6, *(start + (stage.until - start) * k / 40 for k in range(1, 41))]
        rows += [{"series": label, "progress": step * unit, "lambda": factor(stages, step)} for step in steps]
        start = stage.until
    return rows


def published_stages(scale: str) -> list[Stage]:
    """Return the stages of Tables 6 and 7, except decay and SFT, which are separate runs of the 1B model."""
    table = "table7_stages_minicpm" if scale == "1B" else "table6_stages_llama2"
    rows = [row for row in published_table(table) if row["model"] == scale and row["stage"].isdigit()]
    return [
        Stage(
            until=int(row["accumulated_steps"]),
            shape="sine" if int(row["stage"]) >= 2 else "constant",
            peak=float(row["lambda"]),
        )
        for row in rows
    ]
