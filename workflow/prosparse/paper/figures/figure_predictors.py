"""Table 2, left half, as a figure: activation recall over predicted sparsity."""

from __future__ import annotations

import statistics
from typing import Any

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.figures.chart import COLORS, DASHES, GRAY, Drawn, chart_title, empty_figure, import_altair
from prosparse.paper.results import accelerated
from prosparse.paper.results.accelerated import KINDS
from prosparse.paper.results.labels import label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.prediction import Prediction, interpolated, read_prediction
from prosparse.paper.results.reader import Results
from prosparse.published.settings import Setting, settings


def needs(experiment: Experiment) -> Needs:
    return accelerated.prediction_needs(experiment)


PAPER, PERFECT = "the paper's predictor", "a perfect predictor"


def build(results: Results) -> Drawn:
    text = "Table 2, left half. Activation recall over predicted sparsity"
    experiment = results.experiment
    pairs = table2_rows.predicted(experiment)
    if not pairs:
        return empty_figure(results, text, accelerated.missing_predictors(experiment) or "")
    alt = import_altair()
    panels, rows = [], []
    for setting in settings():
        if setting.name in pairs:
            found = read_prediction(results, pairs[setting.name])
            here = [{"setting": setting.name, **row} for row in [*_curves(found), *_marks(setting, found)]]
            rows += here
            panels.append((setting, pairs[setting.name], here))
    names = [KINDS[kind] for kind in accelerated.kinds(experiment)]
    columns = 3
    drawn = [
        _prediction_panel(
            setting,
            label(experiment, pair),
            here,
            names,
            is_left=index % columns == 0,
            is_low=index + columns >= len(panels),
        )
        for index, (setting, pair, here) in enumerate(panels)
    ]
    lines = [alt.hconcat(*drawn[start : start + columns], spacing=24) for start in range(0, len(drawn), columns)]
    chart = alt.vconcat(*lines, spacing=24).properties(
        title=chart_title(
            results,
            text,
            "Lines: held-out text, over decision thresholds; straight beyond the last one. Points: the decision "
            f"threshold in use ({found.decision_threshold:g}). A perfect predictor calls inactive exactly what is "
            "inactive; up and to the right is better.",
            "The paper's point belongs to its own model, which has a different sparsity.",
            wrap=58 * min(columns, len(panels)) + 20,
        )
    )
    return chart, {"data": rows}


def _curves(found: Prediction) -> list[dict[str, Any]]:
    """Return one line per kind: recall at even steps of predicted sparsity, averaged over seeds; and the point used."""
    rows: list[dict[str, Any]] = []
    for kind, shown in found.kinds.items():
        for at in range(0, 101):
            recall = statistics.fmean(interpolated(sweep, at) for sweep in shown.sweep)
            rows.append({"series": KINDS[kind], "kind": "line", "predicted_sparsity": at, "recall": recall})
        point = {"predicted_sparsity": shown.predicted_sparsity.mean, "recall": shown.recall.mean}
        rows.append({"series": KINDS[kind], "kind": "used", **point})
    return rows


def _marks(setting: Setting, found: Prediction) -> list[dict[str, Any]]:
    printed = {key: float(setting.printed[key]) for key in ("activation_recall", "predicted_sparsity")}
    return [
        {
            "series": PAPER,
            "kind": "mark",
            "predicted_sparsity": printed["predicted_sparsity"],
            "recall": printed["activation_recall"],
        },
        {"series": PERFECT, "kind": "mark", "predicted_sparsity": found.sparsity.mean, "recall": 100.0},
    ]


def _prediction_panel(
    setting: Setting, name: str, rows: list[dict[str, Any]], names: list[str], is_left: bool, is_low: bool
) -> Any:
    alt = import_altair()
    domain = [*names, PAPER, PERFECT]
    colors = [*COLORS[: len(names)], "#000000", GRAY]
    legend = alt.Legend(
        orient="bottom", title=None, columns=len(domain), symbolSize=90, symbolOpacity=1, symbolType="circle"
    )
    color = alt.Color("series:N", scale=alt.Scale(domain=domain, range=colors), sort=None, legend=legend)
    shape = alt.Shape(
        "series:N",
        scale=alt.Scale(domain=domain, range=[*["circle"] * len(names), "diamond", "cross"]),
        sort=None,
        legend=legend,
    )
    scale = alt.Scale(domain=[0, 103], nice=False)
    ticks = alt.Axis(values=[0, 20, 40, 60, 80, 100])
    x = alt.X("predicted_sparsity:Q", scale=scale, axis=ticks, title="Predicted sparsity (%)" if is_low else None)
    y = alt.Y("recall:Q", scale=scale, axis=ticks, title="Activation recall (%)" if is_left else None)
    layers = []
    for kind, dashes in zip(names, DASHES, strict=False):
        line = [row for row in rows if row["series"] == kind and row["kind"] == "line"]
        layers.append(
            alt.Chart(alt.Data(values=line)).mark_line(strokeWidth=2, strokeDash=dashes).encode(x=x, y=y, color=color)
        )
    marks = alt.Chart(alt.Data(values=[row for row in rows if row["kind"] != "line"]))
    layers.append(marks.mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, color=color, shape=shape))
    title = alt.TitleParams(name, subtitle=f"row {setting.name}", fontSize=14, subtitleFontSize=11)
    return alt.layer(*layers).properties(width=300, height=260, title=title)
