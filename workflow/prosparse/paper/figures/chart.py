"""Colors, titles and axes of all figures, and a placeholder for an empty one."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from prosparse.paper.results.labels import UNTRAINED
from prosparse.paper.results.origins import stands_in
from prosparse.paper.results.reader import Results

# Okabe and Ito's colors, safe for color-blind readers, without yellow, which is too pale for lines
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]

#: (color, shape) of the methods without training, paler than all others.
UNTRAINED_LOOKS = dict(
    zip(UNTRAINED.values(), [("#4D4D4D", "circle"), ("#808080", "square"), ("#A6A6A6", "triangle-up")], strict=True)
)
UNTRAINED_DASH = [4, 3]


DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 4], [1, 3]]


GRAY = "#666666"


WIDTH, HEIGHT = 520, 300


Drawn = tuple[Any, dict[str, Any]]  # the chart, and its data


def import_altair() -> Any:
    import altair

    return altair


def chart_title(results: Results, text: str, *subtitle: str, wrap: int = 105) -> Any:
    lines = [line for part in subtitle if part for line in textwrap.wrap(part, wrap)]
    return import_altair().TitleParams(
        f"{text} (experiment {results.experiment.experiment})", subtitle=lines, anchor="start", offset=12
    )


def empty_figure(results: Results, text: str, why: str) -> Drawn:
    """Return a placeholder figure that says why it is empty."""
    alt = import_altair()
    chart = (
        alt.Chart(alt.Data(values=[{"text": f"missing: {why}"}]))
        .mark_text(fontSize=15, color=GRAY)
        .encode(text="text:N")
        .properties(width=WIDTH, height=120, title=chart_title(results, text))
    )
    return chart, {"missing_because": why, "data": []}


def series_color(domain: list[str], title: str | None = None, columns: int = 4) -> Any:
    alt = import_altair()
    legend = alt.Legend(
        orient="bottom",
        title=title,
        columns=columns,
        symbolType="stroke",
        symbolSize=300,
        symbolOpacity=1,
        labelLimit=400,
    )
    return {
        "color": alt.Color(
            "series:N",
            scale=alt.Scale(domain=domain, range=[COLORS[i % len(COLORS)] for i in range(len(domain))]),
            legend=legend,
            sort=None,
        ),
        "strokeDash": alt.StrokeDash(
            "series:N",
            scale=alt.Scale(domain=domain, range=[DASHES[i % len(DASHES)] for i in range(len(domain))]),
            legend=legend,
            sort=None,
        ),
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between ``low`` and ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]


def ours_of(results: Results, runs: list[str]) -> str:
    """Describe what a figure's runs were trained from."""
    words = list(dict.fromkeys(stands_in(results.experiment, None, run) for run in runs))
    return sources(results, words)


def sources(results: Results, words: list[str]) -> str:
    """Describe our models in one sentence that says stand-in only once."""
    prefix = "stand-in: "
    stand_ins = [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
    originals = [word for word in words if not word.startswith(prefix)]
    if stand_ins:
        originals.append(f"stand-in{'s' if len(stand_ins) > 1 else ''}: {'; '.join(stand_ins)}")
    return f"Ours: {'; '.join(originals)}; {_seeds(results)}."


def _seeds(results: Results) -> str:
    number = len(results.experiment.seeds)
    return f"{number} seed{'s' if number > 1 else ''}"


def styled(chart: Any) -> Any:
    """Return the chart with the fonts and colors of all figures."""
    alt = import_altair()
    return chart.configure(  # at once: every call copies the whole chart
        font="Arial, Helvetica, Liberation Sans, DejaVu Sans, sans-serif",
        background="white",
        padding=14,
        axis=alt.AxisConfig(
            labelFontSize=13, titleFontSize=14, titleFontWeight="normal", gridColor="#E6E6E6", titlePadding=8
        ),
        legend=alt.LegendConfig(labelFontSize=13, titleFontSize=13),
        title=alt.TitleConfig(
            fontSize=16, subtitleFontSize=12, subtitleColor="#444444", subtitleLineHeight=16, subtitlePadding=6
        ),
        view=alt.ViewConfig(stroke="#BBBBBB"),
    )
