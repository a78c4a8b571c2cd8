"""Sparsity of every layer as a heat map, one per model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.figures.chart import import_altair
from prosparse.paper.html.charts import Chart, chart, tooltips
from prosparse.paper.results.labels import label, model_label
from prosparse.paper.results.reader import MissingResult, Results

SHOWN = {"pair:N": ("Model", None), "layer:O": ("Layer", None), "sparsity:Q": ("Sparsity (%)", ".2f")}


def layer_charts(results: Results) -> list[Chart]:
    """Return a heat map per model with a sparse pair."""
    models: dict[str, list[dict[str, Any]]] = {}
    for pair in _pairs(results.experiment):
        run, activation = results.experiment.pair(pair)
        try:
            found = results.sparsity(run, activation)
        except MissingResult:
            continue
        if found.sparsity.mean > 0:
            models.setdefault(model_label(results.experiment, run), []).extend(
                {"pair": label(results.experiment, pair), "layer": index, "sparsity": layer.mean}
                for index, layer in enumerate(found.layers)
            )
    return [
        chart(f"layers-{index}", model, _drawn(rows), "Layer 0 is the lowest. Mean over seeds.")
        for index, (model, rows) in enumerate(models.items())
    ]


def _pairs(experiment: Experiment) -> Iterator[str]:
    """Yield once each pair that stands for a row, is compared, or is on the frontier, with its activation."""
    wanted = [*experiment.rows.values(), *experiment.ours.values(), *experiment.figures.frontier_pairs()]
    yield from dict.fromkeys("{}@{}".format(*experiment.pair(pair)) for pair in wanted)


def _drawn(rows: list[dict[str, Any]]) -> Any:
    alt = import_altair()
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("layer:O", title="Layer", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("pair:N", title=None, sort=pairs, axis=alt.Axis(labelLimit=330)),
            color=alt.Color(
                "sparsity:Q",
                title="Sparsity (%)",
                scale=alt.Scale(scheme="viridis", zero=False),
                legend=alt.Legend(orient="bottom", gradientLength=200),
            ),
            tooltip=tooltips(SHOWN),
        )
        .properties(width=alt.Step(22), height=alt.Step(20))
    )
