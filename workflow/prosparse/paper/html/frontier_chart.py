"""The frontier: held-out loss over sparsity, one chart per model."""

from __future__ import annotations

import statistics
from typing import Any

from prosparse.experiment.figures import Frontier
from prosparse.paper.figures.chart import GRAY, UNTRAINED_DASH, import_altair
from prosparse.paper.html.charts import Chart, by_method, chart, tooltips
from prosparse.paper.results.final_factor import final_factor
from prosparse.paper.results.labels import UNTRAINED, label, untrained_label
from prosparse.paper.results.reader import Results

SHOWN = {
    "model:N": ("Model", None),
    "method:N": ("Method", None),
    "seed:N": ("Seed", None),
    "sparsity:Q": ("Sparsity (%)", ".2f"),
    "loss:Q": ("Loss (nats/token)", ".3f"),
    "lambda:Q": ("Final λ", ".3~g"),
    "threshold:Q": ("Threshold", "~g"),
}


def frontier_charts(results: Results) -> list[Chart]:
    """Return a chart per model that the experiment names; none if it names none."""
    return [
        chart(f"frontier-{index}", title, _drawn(results, frontier), "Better is down and to the right.")
        for index, (title, frontier) in enumerate(results.experiment.figures.frontier.items())
    ]


def _drawn(results: Results, frontier: Frontier) -> Any:
    alt = import_altair()
    rows = [
        row for method, pairs in frontier.methods.items() for pair in pairs for row in points(results, method, pair)
    ]
    untrained = _untrained(results, frontier)
    original = points(results, "original", frontier.original)
    level = statistics.fmean(row["loss"] for row in original)
    panels = results.experiment.figures.frontier.values()
    methods = list(dict.fromkeys([*frontier.methods, *(row["method"] for row in untrained)]))
    color, shape = by_method(methods, list(dict.fromkeys(m for panel in panels for m in panel.methods)))
    losses = [row["loss"] for row in [*rows, *original]]  # the lines of thresholds may leave the chart
    margin = 0.08 * (max(losses) - min(losses)) or 0.1
    y_scale = alt.Scale(domain=[min(losses) - margin, max(losses) + margin], nice=False)
    x = alt.X("sparsity:Q", title="Activation sparsity (%)", scale=alt.Scale(zero=False, padding=14))
    y = alt.Y("loss:Q", title="Held-out loss (nats/token)", scale=y_scale)
    base = alt.Chart(alt.Data(values=rows))
    # a method's pairs are joined in the order of their mean sparsity over seeds
    line = alt.Chart(alt.Data(values=_means(rows))).mark_line(strokeWidth=2, tooltip=None)
    without = alt.Chart(alt.Data(values=_means(untrained))).mark_line(
        strokeWidth=1.5, strokeDash=UNTRAINED_DASH, clip=True, tooltip=None
    )
    lines = [each.encode(x=x, y=y, color=color) for each in ([line, without] if untrained else [line])]
    marks = base.mark_point(filled=True, size=90, opacity=0.9).encode(
        x=x, y=y, color=color, shape=shape, tooltip=tooltips(SHOWN)
    )
    rule = alt.Chart(alt.Data(values=[{"loss": level, "text": f"original, {level:.3f}"}]))
    dashed = rule.mark_rule(strokeDash=[6, 4], color=GRAY, strokeWidth=1.5, tooltip=None).encode(y=y)
    words = rule.mark_text(align="left", baseline="bottom", dx=6, dy=-3, color=GRAY, fontSize=12, tooltip=None).encode(
        x=alt.value(0), y=y, text="text:N"
    )
    dots = alt.Chart(alt.Data(values=untrained)).mark_point(filled=True, size=60, opacity=0.9, clip=True)
    layers = [dots.encode(x=x, y=y, color=color, shape=shape, tooltip=tooltips(SHOWN)), marks] if untrained else [marks]
    return alt.layer(dashed, words, *lines, *layers).properties(width="container", height=270)


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each pair's mean over seeds, in the order of the rows."""
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        pairs.setdefault((row["method"], row["pair"]), []).append(row)
    return [
        {"method": method, **{key: statistics.fmean(row[key] for row in mine) for key in ("sparsity", "loss")}}
        for (method, _), mine in pairs.items()
    ]


def _untrained(results: Results, frontier: Frontier) -> list[dict[str, Any]]:
    """Return the original under thresholds, once per method, setting and seed."""
    if not frontier.training_free:
        return []
    found = results.training_free(*results.experiment.pair(frontier.original))
    return [
        {
            "pair": untrained_label(each.method, each.target),
            "model": f"{label(results.experiment, frontier.original)}, {untrained_label(each.method, each.target)}",
            "method": UNTRAINED[each.method],
            "seed": seed,
            "sparsity": sparsity,
            "loss": loss,
        }
        for each in found
        for seed, sparsity, loss in zip(
            results.experiment.seeds, each.sparsity.sparsity.seeds, each.sparsity.loss.seeds, strict=True
        )
    ]


def points(results: Results, method: str, pair: str) -> list[dict[str, Any]]:
    """Return a pair's sparsity and loss, once per seed."""
    experiment = results.experiment
    run, activation = experiment.pair(pair)
    found = results.sparsity(run, activation)
    factor = final_factor(results, run).seeds
    factors = factor if len(factor) > 1 else factor * len(experiment.seeds)
    threshold = activation.parameter if activation.name == "fatrelu" else 0.0 if activation.name == "relu" else None
    return [
        {
            "pair": pair,
            "model": label(experiment, pair),
            "method": method,
            "seed": seed,
            "sparsity": sparsity,
            "loss": loss,
            "lambda": factor,
            "threshold": threshold,
        }
        for seed, sparsity, loss, factor in zip(
            experiment.seeds, found.sparsity.seeds, found.loss.seeds, factors, strict=True
        )
    ]
