"""A run's training: lambda(t), sparsity and loss over its tokens, linked."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.lineage import tokens
from prosparse.paper.figures.chart import COLORS, GRAY, import_altair
from prosparse.paper.html.charts import Chart, chart, tooltips
from prosparse.paper.results.labels import run_label
from prosparse.paper.results.reader import MissingResult, Results

PANELS = {
    "lambda": ("λ(t)", 90, COLORS[1]),
    "sparsity": ("Sparsity (%)", 150, COLORS[0]),
    "loss": ("Loss (nats/token)", 150, COLORS[2]),
}
#: Panel -> the fields that it draws.
DRAWN = {"lambda": ["lambda"], "sparsity": ["low", "high"], "loss": ["loss"]}
SHOWN = {
    "step:Q": ("Step", ",d"),
    "tokens:Q": ("Tokens", ",d"),
    "stage:O": ("Stage", None),
    "lambda:Q": ("λ", ".3~g"),
    "sparsity:Q": ("Sparsity (%)", ".2f"),
    "loss:Q": ("Loss (nats/token)", ".3f"),
}


def training_charts(results: Results) -> list[Chart]:
    """Return a chart per trained run whose ledgers exist, the first size's ProSparse first."""
    experiment = results.experiment
    found = []
    for run in experiment.runs:
        if experiment.runs[run].stages[-1].until and (rows := _rows(results, run)):
            ends = [{"end": tokens(experiment, run, stage)} for stage in range(len(experiment.runs[run].stages) - 1)]
            found.append(
                chart(
                    f"training-{run}",
                    run_label(experiment, run),
                    _drawn(rows),
                    datasets={"rows": rows, "ends": ends},
                )
            )
    progressive = experiment.rows.get("ProSparse-7B", "").partition("@")[0]
    return sorted(found, key=lambda each: each.name != f"training-{progressive}")


def _rows(results: Results, run: str) -> list[dict[str, Any]]:
    try:
        ledger = results.ledger(run)
    except MissingResult:
        return []
    return [
        {
            "stage": entry.stage,
            "step": entry.step,
            "tokens": entry.tokens,
            "lambda": entry.factor,
            "sparsity": entry.sparsity.mean,
            "low": entry.sparsity.mean - (entry.sparsity.spread or 0.0),
            "high": entry.sparsity.mean + (entry.sparsity.spread or 0.0),
            "loss": entry.lm_loss,
        }
        for entry in ledger
    ]


def _drawn(rows: list[dict[str, Any]]) -> Any:
    """Draw named data: ``rows`` of the ledger, given for their ranges, and the ``ends`` of stages."""
    alt = import_altair()
    has_spread = any(row["low"] != row["high"] for row in rows)
    ranges = {key: _range([row[name] for row in rows for name in names]) for key, names in DRAWN.items()}
    ranges["lambda"] = [0, max(row["lambda"] for row in rows) or 1]
    # hovering one panel marks the same step in all
    near = alt.selection_point(
        name="near", fields=["tokens"], nearest=True, on="pointerover", clear="pointerout", empty=False
    )
    base = alt.Chart(alt.NamedData("rows"))
    panels = []
    for index, (key, (title, height, color)) in enumerate(PANELS.items()):
        last = index == len(PANELS) - 1
        x = alt.X(
            "tokens:Q",
            title="Training tokens (dashed: ends of stages)" if last else None,
            scale=alt.Scale(domain=[0, rows[-1]["tokens"]], nice=False),
            axis=alt.Axis(labels=last, ticks=last, format="~s", tickCount=6),
        )
        axis = alt.Axis(tickCount=4, minExtent=36)
        y = alt.Y(f"{key}:Q", title=title, scale=alt.Scale(domain=ranges[key], zero=False), axis=axis)
        line = base.mark_line(color=color, strokeWidth=2, tooltip=None).encode(x=x, y=y)
        aim = base.mark_point(opacity=0, size=1, tooltip=None).encode(x=x).add_params(near) if not index else None
        marked = base.transform_filter(near)
        layers = [
            alt.Chart(alt.NamedData("ends")).mark_rule(strokeDash=[3, 3], color=GRAY, tooltip=None).encode(x="end:Q"),
            *(
                [base.mark_area(color=color, opacity=0.2, tooltip=None).encode(x=x, y=alt.Y("low:Q"), y2="high:Q")]
                if key == "sparsity" and has_spread
                else []
            ),
            line,
            *([aim] if aim is not None else []),
            marked.mark_rule(color=GRAY, tooltip=None).encode(x=x),
            marked.mark_point(filled=True, size=60, color=color).encode(x=x, y=y, tooltip=tooltips(SHOWN)),
        ]
        panels.append(alt.layer(*layers, width=560, height=height))
    # given at once: every method of a chart copies all of it
    return alt.vconcat(*panels, spacing=8, resolve=alt.Resolve(scale=alt.ScaleResolveMap(x="shared")))


def _range(values: list[float]) -> list[float]:
    """Return the range of some values; of a constant, one around it."""
    low, high = min(values), max(values)
    return [low, high] if low < high else [low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10]
