"""Figure 4: sparsity of each layer."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.figures.chart import (
    COLORS,
    DASHES,
    HEIGHT,
    WIDTH,
    Drawn,
    chart_title,
    empty_figure,
    import_altair,
    sources,
)
from prosparse.paper.results.labels import run_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import stands_in
from prosparse.paper.results.reader import Results
from prosparse.published.tables import SCALES, published_table


def needs(experiment: Experiment) -> Needs:
    keys = [key for _, plain, final in SCALES.values() for key in (plain, final)]
    return Needs(sparsity={experiment.pair(experiment.rows[key])[0] for key in keys if key in experiment.rows})


def build(results: Results) -> Drawn:
    text = "Figure 4. Layer-wise sparsity"
    experiment = results.experiment
    alt = import_altair()
    rows, panels, runs, absent, words = [], [], [], [], []
    without, shifted = "without threshold shifting", "with threshold shifting"
    for scale, (_, plain, final) in SCALES.items():
        drawn: list[dict[str, Any]] = []
        for label, key in ((without, plain), (shifted, final)):
            pair = experiment.rows.get(key)
            if pair is None:
                absent.append(key)
                continue
            run, activation = experiment.pair(pair)
            runs.append(run)
            words.append(stands_in(experiment, key, run))
            for layer, value in enumerate(results.sparsity(run, activation).layers):
                drawn.append(
                    {
                        "scale": scale,
                        "pair": f"{run}@{activation}",
                        "series": label,
                        "layer": layer + 1,
                        "sparsity": value.mean,
                        "low": value.mean - (value.spread or 0.0),
                        "high": value.mean + (value.spread or 0.0),
                    }
                )
        rows += drawn
        if drawn:
            panels.append((scale, drawn))
    if not panels:
        return empty_figure(results, text, "no run stands for a ProSparse row")
    floor = max(0, 10 * (min(row["low"] for row in rows) // 10))
    legend = alt.Legend(orient="bottom", title=None, symbolSize=90, symbolOpacity=1, labelLimit=400)
    charts = []
    for index, (scale, drawn) in enumerate(panels):
        layers = max(row["layer"] for row in drawn)
        base = alt.Chart(alt.Data(values=drawn))
        x = alt.X(
            "layer:Q",
            title="Layer (1 is the lowest)",
            scale=alt.Scale(domain=[1, max(layers, 2)], padding=12, nice=False),
            axis=alt.Axis(values=list(range(1, layers + 1, max(1, layers // 8))), format="d"),
        )
        y_scale = alt.Scale(domain=[floor, 100], clamp=True)
        y = alt.Y("sparsity:Q", title="Activation sparsity (%)" if index == 0 else None, scale=y_scale)
        series = [without, shifted]
        color = alt.Color("series:N", scale=alt.Scale(domain=series, range=COLORS), legend=legend, sort=None)
        shape = alt.Shape(
            "series:N", scale=alt.Scale(domain=series, range=["circle", "square"]), legend=legend, sort=None
        )
        parts = [
            *(
                alt.Chart(alt.Data(values=[row for row in drawn if row["series"] == label]))
                .mark_line(strokeWidth=2.2, strokeDash=dashes)
                .encode(x=x, y=y, color=color)
                for label, dashes in zip(series, DASHES, strict=False)
            ),
            base.mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=color, shape=shape),
        ]
        if len(experiment.seeds) > 1:
            parts.insert(0, base.mark_rule().encode(x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=color))
        run, _ = experiment.pair(drawn[0]["pair"])
        charts.append(
            alt.layer(*parts).properties(
                width=300 if len(panels) > 1 else WIDTH,
                height=HEIGHT,
                title=alt.TitleParams(
                    run_label(experiment, run),
                    subtitle=_papers(scale),
                    fontSize=14,
                    subtitleFontSize=11,
                ),
            )
        )
    chart = alt.hconcat(*charts, spacing=24).properties(
        title=chart_title(
            results,
            text,
            sources(results, list(dict.fromkeys(words))),
            "On held-out tokens of the mixed corpora.",
            f"Missing (no run stands for it): {', '.join(absent)}." if absent else "",
            wrap=60 * len(panels) + 30,
        )
    )
    return chart, {"data": rows, "missing": absent}


def _papers(scale: str) -> str:
    """Say which rows the panel stands for, with the averages that the paper prints: it draws its layers only."""
    printed = {row["setting"]: row["average_sparsity"] for row in published_table("table1_overall")}
    rows = [f"{row} ({printed[row]}%)" for row in SCALES[scale][1:]]
    return f"rows {' and '.join(rows)}, the paper's average"
