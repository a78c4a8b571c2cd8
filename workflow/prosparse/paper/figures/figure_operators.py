"""Table 2, right half, as a figure: operator time over density."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.figures.chart import Drawn, chart_title, empty_figure, import_altair, log_ticks, series_color
from prosparse.paper.results import operators
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.operator_lines import densest_fitted, measured_line
from prosparse.paper.results.operators import STEPS, Case, Timings
from prosparse.paper.results.reader import Results


def needs(experiment: Experiment) -> Needs:
    return Needs(operators=experiment.operators is not None)


OURS = "ours: measured (points) and fixed + slope × density"


GATHERED, DENSE, TORCH = "gather, then a dense product", "ours, every neuron active", "torch's dense product"


STREAM, ROWS = "limit: a sequential read", "limit: a read of the active rows"


SERIES = [OURS, GATHERED, DENSE, TORCH, STREAM, ROWS]


ARMS = {OURS: "sparse", GATHERED: "gathered", DENSE: "dense", TORCH: "torch"}


LIMITS = {STREAM: "stream", ROWS: "rows"}


def build(results: Results) -> Drawn:
    text = "Table 2, right half. Time of the sparse FFN operators over density"
    timings = operators.read(results)
    if timings is None or results.experiment.operators is None:
        return empty_figure(results, text, "the experiment times no operators")
    alt = import_altair()
    scales = list(results.experiment.operators.shapes)
    rows = [row for scale in scales for step in STEPS for row in _rows(timings, scale, step)]
    drawn = [series for series in SERIES if any(row["series"] == series for row in rows)]
    panels = []
    for step in STEPS:
        of_step = []
        for scale in scales:
            here = [row for row in rows if row["scale"] == scale]  # both steps, on the same axes
            of_step.append(_panel(timings.of_scale(scale)[0], scale, step, here, drawn, is_first=scale == scales[0]))
        panels.append(alt.hconcat(*of_step, spacing=24))
    chart = alt.vconcat(*panels, spacing=24).properties(
        title=chart_title(
            results,
            text,
            f"{timings.machine}, {timings.dtype}, one token, random weights and patterns; every call uses different "
            f"weights (cold). Medians of {timings.rounds} rounds; bars: quartiles. Both axes are logarithmic.",
            wrap=55 * len(scales) + 10,
        )
    )
    return chart, {"device": timings.device, "data": rows}


def _rows(timings: Timings, scale: str, step: int) -> list[dict[str, Any]]:
    """Return a panel's data: ``kind`` is ``measured``, or ``line`` for the fit to our times."""
    cases = timings.of_scale(scale)
    rows: list[dict[str, Any]] = []
    for case in cases:
        for series, arm in ARMS.items():
            spread = case.microseconds(f"{arm}_{STEPS[step]}")
            times = {"time": spread.median, "low": spread.lower, "high": spread.upper}
            rows.append({"series": series, "kind": "measured", "density": case.density, **times})
        for series, limit in LIMITS.items():
            if case.measured(limit):  # a GPU has no limit of rows
                time = case.microseconds(limit).median
                rows.append({"series": series, "kind": "measured", "density": case.density, "time": time})
    line = measured_line(cases, step, "cold")
    if line is not None:
        low, high = cases[-1].density, min(cases[0].density, densest_fitted())
        grid = [low * (high / low) ** (k / 40) for k in range(41)]
        # a logarithmic axis cannot show the line below zero
        fitted = [{"density": density, "time": line.at(density)} for density in grid if line.at(density) > 0]
        rows += [{"series": OURS, "kind": "line", **row} for row in fitted]
    return [{"scale": scale, "step": step, **row} for row in rows]


def _panel(case: Case, scale: str, step: int, rows: list[dict[str, Any]], drawn: list[str], is_first: bool) -> Any:
    """Draw the rows of ``step``; ``rows`` holds both steps, so that panels share their axes."""
    alt = import_altair()
    left, right = min(row["density"] for row in rows) / 1.15, max(row["density"] for row in rows) * 1.1
    times = [row[key] for row in rows for key in ("time", "low", "high") if key in row]
    bottom, top = min(times) / 1.2, max(times) * 1.2
    x = alt.X(
        "density:Q",
        scale=alt.Scale(type="log", domain=[left, right], nice=False),
        axis=alt.Axis(values=log_ticks(left, right), format="~%"),
        title="Density (share of active neurons)" if step == max(STEPS) else None,
    )
    scale_of_times = alt.Scale(type="log", domain=[bottom, top], nice=False)
    y = alt.Y(
        "time:Q",
        scale=scale_of_times,
        axis=alt.Axis(values=log_ticks(bottom, top), format=","),
        title=f"Step ({step}), time (µs)" if is_first else None,
    )
    colors = series_color(drawn, columns=3)
    shown = [row for row in rows if row["step"] == step]
    others = alt.Chart(alt.Data(values=[row for row in shown if row["series"] != OURS]))
    fitted = alt.Chart(alt.Data(values=[row for row in shown if row["kind"] == "line"]))
    ours = alt.Chart(alt.Data(values=[row for row in shown if row["series"] == OURS and row["kind"] == "measured"]))
    low = alt.Y("low:Q", scale=scale_of_times)
    return alt.layer(
        others.mark_line(strokeWidth=2).encode(x=x, y=y, **colors),
        fitted.mark_line(strokeWidth=1.2).encode(x=x, y=y, **colors),
        ours.mark_rule(strokeWidth=1.5).encode(x=x, y=low, y2="high:Q", color=colors["color"]),
        ours.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=colors["color"]),
    ).properties(
        width=300,
        height=240,
        title=alt.TitleParams(f"{scale} ({case.hidden_size} × {case.intermediate_size}), step ({step})", fontSize=14),
    )
