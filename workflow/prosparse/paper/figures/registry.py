"""The figures, in the order of the page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prosparse.experiment.layout import Layout
from prosparse.paper.figures.chart import Drawn, styled
from prosparse.paper.registry import Registry
from prosparse.paper.results.reader import Results
from prosparse.system.files import write_json

FIGURES = Registry[Drawn](
    "figure",
    __package__,
    (
        "figure_frontier",
        "figure1",
        "figure2",
        "figure3",
        "figure4",
        "figure_predictors",
        "figure_decoding",
        "figure_operators",
        "figure_schedules",
    ),
)


def write(name: str, layout: Layout) -> list[Path]:
    """Write a figure as PNG (scale 2), SVG and JSON (the plotted data).

    Raises:
        ConfigError: if there is no such figure.
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    chart, data = FIGURES.build(name, Results(layout))
    title = str(chart.title.text)
    chart = styled(chart)
    written = []
    for suffix, options in (("png", {"scale_factor": 2}), ("svg", {})):
        path = layout.figure(name, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{name}.partial.{suffix}")
        chart.save(str(partial), **options)
        os.replace(partial, path)
        written.append(path)
    plotted = layout.figure(name, "json")
    write_json(plotted, {"figure": name, "title": title, "experiment": layout.experiment.experiment, **_finite(data)})
    return [*written, plotted]


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON lacks, with None."""
    return json.loads(json.dumps(data), parse_constant=lambda _: None)
