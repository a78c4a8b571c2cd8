"""Charts that the page draws itself, as wide as the reader's screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prosparse.paper.figures.chart import COLORS, UNTRAINED_LOOKS, import_altair, styled
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.results.reader import MissingResult, Results

Datasets = dict[str, list[dict[str, Any]]]

SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]


@dataclass(frozen=True)
class Chart:
    """A chart by the id of its element; ``spec`` is Vega-Lite as JSON, safe within a script element."""

    name: str
    title: str
    spec: str
    description: str = ""


def chart(name: str, title: str, drawn: Any, description: str = "", datasets: Datasets | None = None) -> Chart:
    """Return an Altair chart for the page, with the style of all figures.

    ``datasets`` holds the rows of named data: Altair would copy and check every row several times.
    """
    spec = styled(drawn).to_dict(validate=False)
    spec["datasets"] = spec.get("datasets", {}) | (datasets or {})
    spec["config"] |= {"background": "transparent", "padding": 4}
    spec["config"].setdefault("mark", {})["tooltip"] = {"content": "data"}
    return Chart(name, title, _within_script(spec), description)


def figure(name: str, results: Results) -> Chart:
    """Return a figure of the paper as it is written to a file, with the numbers of each mark.

    Raises:
        MissingResult: if there is nothing to draw; says why.
    """
    drawn, data = FIGURES.build(name, results)
    if why := data.get("missing_because"):
        raise MissingResult(why)
    return chart(name, str(drawn.title.text), drawn)


def _within_script(spec: dict[str, Any]) -> str:
    return json.dumps(spec, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def tooltips(fields: dict[str, tuple[str, str | None]]) -> list[Any]:
    """Return tooltips: field with its type -> title and format."""
    alt = import_altair()
    return [
        alt.Tooltip(key, title=title, **({"format": number} if number else {}))
        for key, (title, number) in fields.items()
    ]


def by_method(methods: Sequence[str], among: Sequence[str]) -> tuple[Any, Any]:
    """Return the color and shape of each method, with one legend below the chart.

    Args:
        among: the trained methods of all charts, so that each looks the same in every one.
    """
    alt = import_altair()
    legend = alt.Legend(orient="bottom", title=None, columns=2, symbolSize=90, labelLimit=260)
    looks = {
        each: (COLORS[place % len(COLORS)], SHAPES[place % len(SHAPES)]) for place, each in enumerate(among)
    } | UNTRAINED_LOOKS
    colors, shapes = zip(*(looks[method] for method in methods), strict=True)
    color = alt.Color("method:N", scale=alt.Scale(domain=list(methods), range=list(colors)), sort=None, legend=legend)
    shape = alt.Shape("method:N", scale=alt.Scale(domain=list(methods), range=list(shapes)), sort=None, legend=legend)
    return color, shape
