"""Table 2, left half, as a figure: tokens per second, and what memory allows."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.figures.chart import COLORS, Drawn, chart_title, empty_figure, import_altair
from prosparse.paper.results import accelerated
from prosparse.paper.results.decoding import ENGINES, MODES, Arm, Decoding, Model, decoding_in_all_precisions, named
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results

#: From the top of a panel; llama.cpp is next to our dense mode, which computes as much.
WAYS = {"torch": MODES["torch"], **ENGINES, **MODES}


def needs(experiment: Experiment) -> Needs:
    return accelerated.decoding_needs(experiment)


def build(results: Results) -> Drawn:
    text = "Table 2, left half. Tokens per second, and their bounds"
    reason = accelerated.missing_decoding(results.experiment)
    if reason is not None:
        return empty_figure(results, text, reason)
    alt = import_altair()
    decodings = decoding_in_all_precisions(results)
    panels: dict[str, list[Model]] = {}
    for decoding in sorted(decodings, key=lambda decoding: decoding.shape is None):  # the paper's shapes first
        for model in decoding.models:
            panels.setdefault(model.label, []).append(model)
    rows = [row for models in panels.values() for model in models for row in _rows(model)]
    precisions = list(dict.fromkeys(precision for decoding in decodings for precision in decoding.precisions))
    columns = 2
    drawn = [
        _panel(
            models[0],
            named(results, models[0]),
            [row for row in rows if row["model"] == label],
            precisions,
            is_low=index + columns >= len(panels),
        )
        for index, (label, models) in enumerate(panels.items())
    ]
    lines = [
        alt.hconcat(*drawn[start : start + columns], spacing=30).resolve_scale(yOffset="independent")
        for start in range(0, len(drawn), columns)
    ]
    # a panel has only the precisions that its model was decoded in
    chart = (
        alt.vconcat(*lines, spacing=18)
        .resolve_scale(yOffset="independent")
        .properties(
            title=chart_title(
                results,
                text,
                "Bars: medians over prompts. Black lines: the bound, at which memory delivers the bytes that a token "
                "needs; no kernel can beat it while the weights come from memory. llama.cpp's bound is that of our "
                "dense mode. Each panel has its own axis.",
                *(f"{decoding.conditions[0].upper()}{decoding.conditions[1:]}." for decoding in _distinct(decodings)),
                wrap=135,
            )
        )
    )
    return chart, {"data": rows}


def _distinct(decodings: list[Decoding]) -> list[Decoding]:
    """Keep one per machine and precisions: the other conditions hardly differ."""
    return list({(decoding.machine, *decoding.precisions): decoding for decoding in decodings}.values())


def _rows(model: Model) -> list[dict[str, Any]]:
    arms = {**model.modes, **model.engines}
    shown = {way: arms[way] for way in WAYS if way in arms and arms[way].missing is None}
    return [
        {
            "model": model.label,
            "way": WAYS[way],
            "precision": model.precision,
            "tokens_per_second": arm.tokens_per_second.median,
            "bound": _bound(model, arm),
        }
        for way, arm in shown.items()
    ]


def _bound(model: Model, arm: Arm) -> float | None:
    """Return the tokens/s that memory allows; None if nobody knows what the engine reads."""
    bound = (model.modes["dense"] if arm.name == "llama.cpp" else arm).spread("bound_milliseconds")
    return None if bound is None else 1e3 / bound.median


def _panel(model: Model, name: str, rows: list[dict[str, Any]], precisions: list[str], is_low: bool) -> Any:
    alt = import_altair()
    ways = [way for way in WAYS.values() if any(row["way"] == way for row in rows)]
    shown = [precision for precision in precisions if any(row["precision"] == precision for row in rows)]
    largest = max(max(row["tokens_per_second"], row["bound"] or 0) for row in rows)
    x = alt.X(
        "tokens_per_second:Q",
        scale=alt.Scale(domain=[0, 1.16 * largest], nice=False),
        axis=alt.Axis(tickCount=6, format=",~f"),
        title="tokens/s" if is_low else None,
    )
    y = alt.Y("way:N", sort=ways, title=None, axis=alt.Axis(labelLimit=200))
    beside = alt.YOffset("precision:N", sort=shown, scale=alt.Scale(domain=shown, paddingInner=0.1))
    color = alt.Color(
        "precision:N",
        sort=None,
        scale=alt.Scale(domain=precisions, range=COLORS[: len(precisions)]),
        legend=alt.Legend(orient="bottom", title=None, symbolType="square", symbolSize=130),
    )
    texts = [
        {**row, "text": _written(rate := row["tokens_per_second"]), "end": max(rate, row["bound"] or 0)} for row in rows
    ]
    base = alt.Chart(alt.Data(values=texts)).encode(y=y, yOffset=beside)
    bounds = alt.Chart(alt.Data(values=[row for row in rows if row["bound"] is not None]))
    sparsity = f", {model.raw['sparsity']:.1%} sparse" if model.raw.get("sparsity") else ""
    return alt.layer(
        base.mark_bar(height=11).encode(x=x, color=color),
        base.mark_text(align="left", dx=5, fontSize=10).encode(x=alt.X("end:Q"), text="text:N"),
        bounds.mark_tick(thickness=2, height=13, color="black").encode(x=alt.X("bound:Q"), y=y, yOffset=beside),
    ).properties(
        width=330,
        height=(10 + 14 * len(shown)) * len(ways),
        title=alt.TitleParams(name, subtitle=f"{model.size}{sparsity}", fontSize=14, subtitleFontSize=11),
    )


def _written(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
