"""The figures, in the order of the page."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.figures.chart import Drawn, styled
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.system.errors import ConfigError
from prosparse.system.files import write_json

#: Modules of this package, one per figure.
FIGURES = (
    "figure1",
    "figure2",
    "figure3",
    "figure4",
    "figure_predictors",
    "figure_decoding",
    "figure_operators",
)


class FigureModule(Protocol):
    """What each module of this package provides."""

    def needs(self, experiment: Experiment) -> Needs:
        """Return the measurements that the figure needs."""

    def build(self, results: Results) -> Drawn:
        """Build the figure from the measurements.

        Raises:
            MissingResult: if a measurement it needs does not exist; names the file.
        """


def module(name: str) -> FigureModule:
    """Return the module that builds a figure.

    Raises:
        ConfigError: if there is no such figure.
    """
    if name not in FIGURES:
        raise ConfigError(f"figure {name!r}: no such figure; there are {', '.join(FIGURES)}")
    return import_module(f"prosparse.paper.figures.{name}")  # type: ignore[return-value]


def needs(name: str, experiment: Experiment) -> Needs:
    return module(name).needs(experiment)


def build(name: str, results: Results) -> Drawn:
    return module(name).build(results)


def write(name: str, layout: Layout) -> list[Path]:
    """Write a figure as PNG (scale 2), SVG and JSON (the plotted data).

    Raises:
        ConfigError: if there is no such figure.
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    chart, data = build(name, Results(layout))
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
    write_json(plotted, {"figure": name, "experiment": layout.experiment.experiment, **_finite(data)})
    return [*written, plotted]


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON lacks, with None."""
    return json.loads(json.dumps(data), parse_constant=lambda _: None)
