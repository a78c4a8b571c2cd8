"""Table 2, left half, as a figure: where the time of a decoded token goes."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.figures.chart import Drawn, chart_title, empty_figure, import_altair
from prosparse.paper.results import accelerated
from prosparse.paper.results.decoding import ENGINES, MODES, PARTS, Arm, Decoding, Model, every_decoding, named
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results


def needs(experiment: Experiment) -> Needs:
    return accelerated.decoding_needs(experiment)


REST, ENGINE = "everything else", "another engine (not broken down)"


#: Colours of ``PARTS`` in order: blues for what sparsity does not affect, warm ones for what it saves.
PART_COLOURS = ["#0072B2", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9", "#009E73"]


def build(results: Results) -> Drawn:
    text = "Table 2, left half. Where the time of a token goes"
    reason = accelerated.missing_decoding(results.experiment)
    if reason is not None:
        return empty_figure(results, text, reason)
    alt = import_altair()
    decodings = every_decoding(results)
    models = [model for decoding in decodings for model in decoding.models]
    models.sort(key=lambda model: model.shape is None)  # the paper's shapes first
    rows = [row for model in models for row in _parts(model)]
    columns = 2
    drawn = [
        _decoding_panel(
            model,
            named(results, model),
            [row for row in rows if row["model"] == model.label],
            is_low=index + columns >= len(models),
        )
        for index, model in enumerate(models)
    ]
    lines = [alt.hconcat(*drawn[start : start + columns], spacing=30) for start in range(0, len(drawn), columns)]
    chart = alt.vconcat(*lines, spacing=18).properties(
        title=chart_title(
            results,
            text,
            "Coloured: the time to read each part's bytes at the memory bandwidth, a bound that no kernel can beat "
            "while the weights come from memory. Grey: the rest of the measured time. Numbers: tokens/s, median over "
            "prompts. Each panel has its own axis.",
            *(f"{decoding.conditions[0].upper()}{decoding.conditions[1:]}." for decoding in _distinct(decodings)),
            wrap=135,
        )
    )
    return chart, {"data": rows}


def _distinct(decodings: list[Decoding]) -> list[Decoding]:
    """Keep one per machine and type: the other conditions hardly differ."""
    return list({(decoding.machine, decoding.dtype): decoding for decoding in decodings}.values())


def _parts(model: Model) -> list[dict[str, Any]]:
    """Return the parts of each mode's time in ms, and the rest of the measured time."""
    ways = [(MODES[name], arm) for name, arm in model.modes.items()]
    ways += [(ENGINES.get(name, name), arm) for name, arm in model.engines.items() if arm.missing is None]
    rows = []
    for way, arm in ways:
        parts = arm.milliseconds_by_part()
        named = {PARTS[part]: time for part, time in parts.items() if time > 0}
        named[REST if parts else ENGINE] = max(arm.milliseconds - sum(named.values()), 0.0)
        rows += [_part(model, way, arm, order, part, time) for order, (part, time) in enumerate(named.items())]
    return rows


def _part(model: Model, way: str, arm: Arm, order: int, part: str, time: float) -> dict[str, Any]:
    return {
        "model": model.label,
        "way": way,
        "part": part,
        "order": order,
        "milliseconds": time,
        "measured": arm.milliseconds,
        "tokens_per_second": arm.tokens_per_second.median,
    }


def _decoding_panel(model: Model, name: str, rows: list[dict[str, Any]], is_low: bool) -> Any:
    alt = import_altair()
    ways = list(dict.fromkeys(row["way"] for row in rows))
    domain = [*PARTS.values(), REST, ENGINE]
    legend = alt.Legend(orient="bottom", title=None, columns=4, symbolType="square", symbolSize=130, labelLimit=300)
    colour = alt.Color(
        "part:N", scale=alt.Scale(domain=domain, range=[*PART_COLOURS, "#BBBBBB", "#888888"]), sort=None, legend=legend
    )
    longest = max(
        max(row["measured"] for row in rows), *(sum(r["milliseconds"] for r in rows if r["way"] == w) for w in ways)
    )
    x = alt.X(
        "milliseconds:Q",
        stack="zero",
        scale=alt.Scale(domain=[0, 1.16 * longest], nice=False),
        axis=alt.Axis(tickCount=6, format=",~f"),
        title="ms per token" if is_low else None,
    )
    y = alt.Y("way:N", sort=ways, title=None, axis=alt.Axis(labelLimit=200))
    bars = (
        alt.Chart(alt.Data(values=rows)).mark_bar(height=15).encode(x=x, y=y, color=colour, order=alt.Order("order:Q"))
    )
    ends = []
    for way in ways:
        here = [row for row in rows if row["way"] == way]
        rate = here[0]["tokens_per_second"]
        text = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        ends.append(
            {"way": way, "end": max(here[0]["measured"], sum(row["milliseconds"] for row in here)), "text": text}
        )
    labels = (
        alt.Chart(alt.Data(values=ends))
        .mark_text(align="left", dx=5, fontSize=12)
        .encode(x=alt.X("end:Q"), y=y, text="text:N")
    )
    sparsity = f", {model.raw['sparsity']:.1%} sparse" if model.raw.get("sparsity") else ""
    subtitle = f"{model.size}{sparsity}"
    return alt.layer(bars, labels).properties(
        width=330,
        height=24 * len(ways),
        title=alt.TitleParams(name, subtitle=subtitle, fontSize=14, subtitleFontSize=11),
    )
