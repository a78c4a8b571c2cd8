"""A panel of the frontier: a line per method, and a dashed line for the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

from prosparse.paper.figures.chart import GRAY, UNTRAINED_DASH, import_altair

WIDTH, HEIGHT = 270, 240
LEGEND_COLUMNS = 6
LABEL_WIDTH, LABEL_HEIGHT = 0.44, 0.09  # of the original's label, as shares of a panel


@dataclass(frozen=True)
class Point:
    """A pair's mean over seeds; spreads are standard deviations, None with one seed.

    Attributes:
        quality: the loss or performance.
        comparable: whether a line joins it to its method's other points.
        trained: whether it is another model than the original; the others may lie outside the panel.
    """

    method: str
    pair: str
    sparsity: float
    sparsity_spread: float | None
    quality: float
    quality_spread: float | None
    comparable: bool = True
    trained: bool = True


@dataclass(frozen=True)
class Original:
    pair: str
    quality: float
    quality_spread: float | None


@dataclass(frozen=True)
class Panel:
    """A model's points; ``number`` formats its quality."""

    title: str
    quality: str
    number: str
    points: Sequence[Point]
    original: Original
    is_reversed: bool = False

    def domain(self) -> tuple[float, float]:
        """Return the range of quality that holds every trained point, bar and label."""
        everything: list[Point | Original] = [*(point for point in self.points if point.trained), self.original]
        low = min(one.quality - (one.quality_spread or 0) for one in everything)
        high = max(one.quality + (one.quality_spread or 0) for one in everything)
        margin = 0.12 * (high - low) or 0.1
        return low - margin, high + margin


Looks = dict[str, tuple[str, str]]  # method -> color and shape


@dataclass(frozen=True)
class Styles:
    """What panels share: each method's looks, and the range of sparsity."""

    looks: Looks
    sparsity: tuple[float, float]


def draw(panel: Panel, styles: Styles) -> Any:
    """Return the panel's chart."""
    alt = import_altair()
    x_scale = alt.Scale(domain=list(styles.sparsity), nice=False)
    y_scale = alt.Scale(domain=list(panel.domain()), nice=False, reverse=panel.is_reversed)
    x = alt.X(
        "sparsity:Q", title="Activation sparsity (%)", scale=x_scale, axis=alt.Axis(tickCount=6, labelFlush=False)
    )
    # as wide and high in every panel, so that panels and their titles align
    y_axis = alt.Axis(tickCount=6, minExtent=38, labelFlush=True)
    y = alt.Y("quality:Q", title=panel.quality, scale=y_scale, axis=y_axis)
    methods, looks = list(styles.looks), styles.looks.values()
    legend = alt.Legend(
        orient="bottom",
        title=None,
        columns=min(len(methods), LEGEND_COLUMNS),
        symbolSize=90,
        symbolOpacity=1,
        labelLimit=400,
    )
    color = alt.Color(
        "method:N", scale=alt.Scale(domain=methods, range=[look[0] for look in looks]), sort=None, legend=legend
    )
    shape = alt.Shape(
        "method:N", scale=alt.Scale(domain=methods, range=[look[1] for look in looks]), sort=None, legend=legend
    )
    rows = [
        {
            **vars(point),
            "left": point.sparsity - (point.sparsity_spread or 0),
            "right": point.sparsity + (point.sparsity_spread or 0),
            "low": point.quality - (point.quality_spread or 0),
            "high": point.quality + (point.quality_spread or 0),
        }
        for point in panel.points
    ]
    points = alt.Chart(alt.Data(values=[row for row in rows if row["trained"]]))
    joined, single, untrained = (
        alt.Chart(alt.Data(values=[row for row in rows if (row["comparable"], row["trained"]) == kind]))
        for kind in ((True, True), (False, True), (True, False))
    )
    layers = [*_original(panel, styles, x_scale, y_scale)]
    if any(point.sparsity_spread is not None for point in panel.points):
        layers += [
            points.mark_rule(strokeWidth=1.5).encode(x=alt.X("left:Q", scale=x_scale), x2="right:Q", y=y, color=color),
            points.mark_rule(strokeWidth=1.5).encode(x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=color),
        ]
    layers += [
        joined.mark_line(strokeWidth=2).encode(x=x, y=y, color=color),
        joined.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=color, shape=shape),
        single.mark_point(filled=False, size=60, opacity=1).encode(x=x, y=y, color=color, shape=shape),
    ]
    if not all(point.trained for point in panel.points):
        layers += [
            untrained.mark_line(strokeWidth=1.5, strokeDash=UNTRAINED_DASH, clip=True).encode(x=x, y=y, color=color),
            untrained.mark_point(filled=True, size=45, opacity=1, clip=True).encode(x=x, y=y, color=color, shape=shape),
        ]
    return alt.layer(*layers).properties(
        width=WIDTH,
        height=HEIGHT,
        title=alt.TitleParams(panel.title, fontSize=14, anchor="start", frame="group", offset=6),
    )


def _original(panel: Panel, styles: Styles, x_scale: Any, y_scale: Any) -> list[Any]:
    """Return the original's dashed line, its spread as a band, and its label where nothing is drawn."""
    alt = import_altair()
    original = panel.original
    right, above = label_place(panel, styles)
    row = {
        "quality": original.quality,
        "low": original.quality - (original.quality_spread or 0),
        "high": original.quality + (original.quality_spread or 0),
        "at": styles.sparsity[right],
        "label": f"original, {panel.number.format(original.quality)}",
    }
    base = alt.Chart(alt.Data(values=[row]))
    y = alt.Y("quality:Q", scale=y_scale)
    band = base.mark_rect(color=GRAY, opacity=0.12).encode(y=alt.Y("low:Q", scale=y_scale), y2="high:Q")
    label = base.mark_text(
        align="right" if right else "left",
        baseline="bottom" if above else "top",
        dx=-6 if right else 6,
        dy=-4 if above else 5,
        fontSize=12,
        color=GRAY,
    )
    return [
        *([band] if original.quality_spread else []),
        base.mark_rule(strokeDash=[6, 4], color=GRAY, strokeWidth=1.5).encode(y=y),
        label.encode(x=alt.X("at:Q", scale=x_scale), y=y, text="label:N"),
    ]


def label_place(panel: Panel, styles: Styles) -> tuple[bool, bool]:
    """Return whether the original's label is at the right end of its line and above it: where least is drawn."""
    (left, right), (low, high) = styles.sparsity, panel.domain()

    def share(sparsity: float, quality: float) -> tuple[float, float]:
        up = (quality - low) / (high - low)
        return (sparsity - left) / (right - left), 1 - up if panel.is_reversed else up

    drawn = [share(point.sparsity, point.quality) for point in panel.points]
    for method in styles.looks:
        line = [p for p in panel.points if p.method == method and p.comparable]
        for one, two in pairwise(sorted(line, key=lambda point: point.sparsity)):
            (x1, y1), (x2, y2) = share(one.sparsity, one.quality), share(two.sparsity, two.quality)
            drawn += [(x1 + (x2 - x1) * k / 10, y1 + (y2 - y1) * k / 10) for k in range(1, 10)]
    height = share(left, panel.original.quality)[1]

    def covered(place: tuple[bool, bool]) -> int:
        is_right, is_above = place
        start, end = (1 - LABEL_WIDTH, 1.0) if is_right else (0.0, LABEL_WIDTH)
        bottom = height if is_above else height - LABEL_HEIGHT
        return sum(start <= x <= end and bottom <= y <= bottom + LABEL_HEIGHT for x, y in drawn)

    return min(product((False, True), (True, False)), key=covered)
