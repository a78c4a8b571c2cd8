"""Loss at equal sparsity against a reference: schedules of λ and of the learning rate."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.schedules import Comparison
from prosparse.paper.figures.chart import COLORS, GRAY, Drawn, chart_title, empty_figure, import_altair, ours_of
from prosparse.paper.results import matched
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results

TITLE = "Loss at equal sparsity"
WIDTH, ROW_HEIGHT = 230, 22


def needs(experiment: Experiment) -> Needs:
    return Needs.of_heldout(experiment, experiment.schedules.pairs())


def build(results: Results) -> Drawn:
    chosen = results.experiment.schedules
    if not chosen.comparisons:
        return empty_figure(results, TITLE, "the experiment names no comparison for this figure")
    alt = import_altair()
    data = {name: _rows(results, name, comparison) for name, comparison in chosen.comparisons.items()}
    panels = [
        alt.hconcat(*(_panel(rows, comparison, at) for at in chosen.sparsities), spacing=14).properties(
            title=alt.TitleParams(
                f"{comparison.title}: loss minus that of {comparison.reference}{_seeds(results, comparison)}",
                fontSize=14,
                anchor="start",
            )
        )
        for (name, comparison), rows in zip(chosen.comparisons.items(), data.values(), strict=True)
    ]
    runs = [results.experiment.pair(pair)[0] for pair in chosen.pairs()]
    chart = alt.vconcat(*panels, spacing=26).properties(
        title=chart_title(
            results,
            TITLE,
            "Better is left. Bars: 95% intervals of the difference, paired by held-out sequence and seed.",
            ours_of(results, runs),
        )
    )
    return chart, {"data": [row for rows in data.values() for row in rows]}


def _seeds(results: Results, comparison: Comparison) -> str:
    measured, seeds = len(matched.measured_seeds(results, comparison)), len(results.experiment.seeds)
    return "" if measured == seeds else f" ({measured} of {seeds} seeds)"


def _rows(results: Results, name: str, comparison: Comparison) -> list[dict[str, Any]]:
    """Return each method at each sparsity; loss, difference and its interval are None where there are none."""
    found, rows = matched.methods(results, comparison), []
    for at in results.experiment.schedules.sparsities:
        others = matched.differences(found, comparison.reference, at)
        for method in comparison.methods:
            loss = found[method].loss_at(at) if method in found else None
            difference = others.get(method)
            known = difference is not None and difference.known
            rows.append(
                {
                    "comparison": name,
                    "method": method,
                    "sparsity": at,
                    "loss": loss.mean if loss is not None else None,
                    "difference": difference.mean if difference is not None else None,
                    "lower": difference.lower if difference is not None and known else None,
                    "upper": difference.upper if difference is not None and known else None,
                }
            )
    return rows


def _panel(rows: list[dict[str, Any]], comparison: Comparison, at: float) -> Any:
    alt = import_altair()
    shown = [row for row in rows if row["sparsity"] == at]
    is_first = at == rows[0]["sparsity"]
    y = alt.Y(
        "method:N",
        sort=list(comparison.methods),
        scale=alt.Scale(domain=list(comparison.methods)),
        title=None,
        axis=alt.Axis(labels=is_first, ticks=False, labelLimit=300),
    )
    x = alt.X("difference:Q", title="nats/token", scale=alt.Scale(domain=_domain(shown)), axis=alt.Axis(tickCount=5))
    points = alt.Chart(alt.Data(values=[row for row in shown if row["difference"] is not None]))
    absent = [
        {"method": row["method"], "text": "missing", "difference": 0}
        for row in shown
        if row["difference"] is None and (row["method"] != comparison.reference or row["loss"] is None)
    ]
    layers = [
        alt.Chart(alt.Data(values=[{"difference": 0}])).mark_rule(color=GRAY, strokeDash=[4, 4]).encode(x=x),
        points.transform_filter("datum.lower !== null")
        .mark_rule(strokeWidth=1.5, color=COLORS[0])
        .encode(x=alt.X("lower:Q"), x2="upper:Q", y=y),
        points.mark_point(filled=True, size=60, opacity=1, color=COLORS[0]).encode(x=x, y=y),
        alt.Chart(alt.Data(values=absent))
        .mark_text(align="left", dx=4, color=GRAY, fontSize=11)
        .encode(x=x, y=y, text="text:N"),
    ]
    return alt.layer(*layers).properties(
        width=WIDTH,
        height=ROW_HEIGHT * len(comparison.methods),
        title=alt.TitleParams(f"at {at:g}% sparsity", fontSize=13, fontWeight="normal", anchor="start"),
    )


def _domain(rows: list[dict[str, Any]]) -> list[float]:
    """Return the range of the differences and their intervals, with 0 and a margin."""
    ends = [row[key] for row in rows for key in ("difference", "lower", "upper") if row[key] is not None]
    low, high = min([0, *ends]), max([0, *ends])
    margin = 0.05 * (high - low) or 0.01
    return [low - margin, high + margin]
