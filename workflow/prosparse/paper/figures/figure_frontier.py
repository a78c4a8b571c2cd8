"""Loss over sparsity: every method's line for each model, next to the paper's points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.figures import Frontier
from prosparse.experiment.lineage import training_free_targets
from prosparse.paper.figures.chart import (
    COLORS,
    UNTRAINED_LOOKS,
    Drawn,
    chart_title,
    empty_figure,
    import_altair,
    ours_of,
)
from prosparse.paper.figures.frontier_panel import Looks, Original, Panel, Point, Styles, draw
from prosparse.paper.results.final_factor import final_factor_needs
from prosparse.paper.results.labels import UNTRAINED, untrained_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.frontier import METHODS, published_original, published_points
from prosparse.published.tables import SCALES

TITLE = "Loss over sparsity: what each method pays for its sparsity"
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
COLUMNS = 3
UNTRAINED_WORDS = (
    "Dashed: thresholds on the original's activations, without training. Lines that leave a panel continue in table "
    "without_training, with the weights that each method can skip: at equal sparsity, CETT skips half as many as ReLU."
)
LOSS, PERFORMANCE = "Held-out loss (nats/token)", "Performance (%), axis reversed"


def needs(experiment: Experiment) -> Needs:
    pairs = experiment.figures.frontier_pairs()
    # the last: lambda, for index.html's chart
    return (
        Needs.of_heldout(experiment, pairs)
        | Needs(training_free=set(training_free_targets(experiment)))
        | final_factor_needs(experiment, {experiment.pair(pair)[0] for pair in pairs})
    )


def build(results: Results) -> Drawn:
    experiment = results.experiment
    frontiers = experiment.figures.frontier
    if not frontiers:
        return empty_figure(results, TITLE, "the experiment names no run for this figure")
    alt = import_altair()
    ours = [_measured(results, label, frontier) for label, frontier in frontiers.items()]
    papers = [_published(scale) for scale in ("7B", "13B")]
    looks = _looks([*ours, *papers])
    points = [point for panel in (*ours, *papers) for point in panel.points]
    trained = [point for point in points if point.trained]  # those of the paper, and some of ours
    left = [draw(panel, Styles(looks, _sparsities(points))) for panel in ours]
    right = [draw(panel, Styles(looks, _sparsities(trained))) for panel in papers]
    groups = [[*left, *right]] if len(left) + len(right) <= COLUMNS else [left, right]
    rows = [group[start : start + COLUMNS] for group in groups for start in range(0, len(group), COLUMNS)]
    drawn = [alt.hconcat(*row, spacing=18) for row in rows]
    several = len(experiment.seeds) > 1
    chart = alt.vconcat(*drawn, spacing=22).properties(
        title=chart_title(
            results,
            TITLE,
            "Better is down and to the right in every panel: the axis of the paper's performance is reversed."
            + (" Bars and bands: standard deviation over seeds." if several else ""),
            ours_of(results, [experiment.pair(pair)[0] for pair in experiment.figures.frontier_pairs()]),
            "" if trained == points else UNTRAINED_WORDS,
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
    dense = results.experiment.pair(frontier.original)
    for each in results.training_free(*dense) if frontier.training_free else []:
        sparsity, loss = each.sparsity.sparsity, each.sparsity.loss
        points.append(
            Point(
                UNTRAINED[each.method], untrained_label(each.method, each.target), sparsity.mean, sparsity.spread,
                loss.mean, loss.spread, trained=False,
            )
        )  # fmt: skip
    original = results.sparsity(*dense).loss
    return Panel(label, LOSS, "{:.3f}", points, Original(frontier.original, original.mean, original.spread))


def _published(scale: str) -> Panel:
    points = [
        Point(point.method, point.source, point.sparsity, None, point.performance, None, point.comparable)
        for point in published_points(scale)
    ]
    name = SCALES[scale][0]
    original = Original(f"Table 1, {name}", published_original(scale), None)
    return Panel(f"Paper: {name}", PERFORMANCE, "{:.2f}", points, original, is_reversed=True)


def _looks(panels: list[Panel]) -> Looks:
    """Give every method a color and shape of its own; the paper's methods have the same in every experiment."""
    used = list(dict.fromkeys(point.method for panel in panels for point in panel.points))
    trained = list(dict.fromkeys([*METHODS, *(method for method in used if method not in UNTRAINED_LOOKS)]))
    looks = {
        method: (COLORS[index % len(COLORS)], SHAPES[index % len(SHAPES)]) for index, method in enumerate(trained)
    } | UNTRAINED_LOOKS
    return {method: look for method, look in looks.items() if method in used}


def _sparsities(points: Iterable[Point]) -> tuple[float, float]:
    """Return the range of sparsity that holds the points with their marks, in percent."""
    lowest = min(point.sparsity - (point.sparsity_spread or 0) for point in points)
    return 5 * ((lowest - 1) // 5), 100


def _rows(panel: Panel, quality: str) -> list[dict[str, Any]]:
    """Return the original and the points, as the figure's JSON names them."""
    drawn = [{"method": "original", **vars(panel.original)}, *map(vars, panel.points)]
    return [
        {"model": panel.title, **{key.replace("quality", quality): value for key, value in row.items()}}
        for row in drawn
    ]
