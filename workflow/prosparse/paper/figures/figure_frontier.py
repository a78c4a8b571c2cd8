"""Loss over sparsity: every method's line for each model, next to the paper's points."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.figures import Frontier
from prosparse.paper.figures.chart import COLORS, Drawn, chart_title, empty_figure, import_altair, ours_of
from prosparse.paper.figures.frontier_panel import Original, Panel, Point, Styles, draw
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.frontier import METHODS, published_original, published_points
from prosparse.published.tables import SCALES

TITLE = "Loss over sparsity: what each method pays for its sparsity"
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
COLUMNS = 3
LOSS, PERFORMANCE = "Held-out loss (nats/token)", "Performance (%), axis reversed"


def needs(experiment: Experiment) -> Needs:
    return Needs.of_heldout(experiment, experiment.figures.frontier_pairs())


def build(results: Results) -> Drawn:
    experiment = results.experiment
    frontiers = experiment.figures.frontier
    if not frontiers:
        return empty_figure(results, TITLE, "the experiment names no run for this figure")
    alt = import_altair()
    ours = [_measured(results, label, frontier) for label, frontier in frontiers.items()]
    papers = [_published(scale) for scale in ("7B", "13B")]
    styles = _styles([*ours, *papers])
    together = len(ours) + len(papers) <= COLUMNS
    groups = [[*ours, *papers]] if together else [ours, papers]
    rows = [group[start : start + COLUMNS] for group in groups for start in range(0, len(group), COLUMNS)]
    drawn = [alt.hconcat(*(draw(panel, styles) for panel in row), spacing=18) for row in rows]
    several = len(experiment.seeds) > 1
    chart = alt.vconcat(*drawn, spacing=22).properties(
        title=chart_title(
            results,
            TITLE,
            "Better is down and to the right in every panel: the axis of the paper's performance is reversed."
            + (" Bars and bands: standard deviation over seeds." if several else ""),
            ours_of(results, [experiment.pair(pair)[0] for pair in experiment.figures.frontier_pairs()]),
            "Hollow in the paper's panels: 89.13 instead of 34.60 billion tokens (Table 4), and Fixed L1 (an early "
            "baseline of Table 1).",
            wrap=66 * max(len(row) for row in rows),
        )
    )
    data = {
        "data": [row for panel in ours for row in _rows(panel, "loss")],
        "published": [row for panel in papers for row in _rows(panel, "performance")],
    }
    return chart, data


def _measured(results: Results, label: str, frontier: Frontier) -> Panel:
    points = []
    for method, pairs in frontier.methods.items():
        for pair in pairs:
            found = results.sparsity(*results.experiment.pair(pair))
            points.append(
                Point(method, pair, found.sparsity.mean, found.sparsity.spread, found.loss.mean, found.loss.spread)
            )
    original = results.sparsity(*results.experiment.pair(frontier.original)).loss
    return Panel(label, LOSS, "{:.3f}", points, Original(frontier.original, original.mean, original.spread))


def _published(scale: str) -> Panel:
    points = [
        Point(point.method, point.source, point.sparsity, None, point.performance, None, point.comparable)
        for point in published_points(scale)
    ]
    name = SCALES[scale][0]
    original = Original(f"Table 1, {name}", published_original(scale), None)
    return Panel(f"Paper: {name}", PERFORMANCE, "{:.2f}", points, original, is_reversed=True)


def _styles(panels: list[Panel]) -> Styles:
    """Give every method a color and shape of its own; the paper's methods have the same in every experiment."""
    used = {point.method for panel in panels for point in panel.points}
    methods = list(dict.fromkeys([*METHODS, *(point.method for panel in panels for point in panel.points)]))
    looks = {
        method: (COLORS[index % len(COLORS)], SHAPES[index % len(SHAPES)])
        for index, method in enumerate(methods)
        if method in used
    }
    lowest = min(point.sparsity - (point.sparsity_spread or 0) for panel in panels for point in panel.points)
    return Styles(looks, (5 * (lowest // 5), 100))


def _rows(panel: Panel, quality: str) -> list[dict[str, Any]]:
    """Return the original and the points, as the figure's JSON names them."""
    drawn = [{"method": "original", **vars(panel.original)}, *map(vars, panel.points)]
    return [
        {"model": panel.title, **{key.replace("quality", quality): value for key, value in row.items()}}
        for row in drawn
    ]
