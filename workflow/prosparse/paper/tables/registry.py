"""The tables, in the order of the page."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.table import Table
from prosparse.paper.tables.text import to_csv, to_latex, to_markdown
from prosparse.system.errors import ConfigError
from prosparse.system.files import write_text

#: Modules of this package, one per table.
TABLES = (
    "table1",
    "table1_early_baselines",
    "table2",
    "table2_decoding",
    "table2_predictors",
    "table2_operators",
    "table2_operators_limit",
    "table2_operators_fit",
    "table2_operators_gpu",
    "table3",
    "table4",
    "table5",
    "table6",
    "table7",
    "table8",
    "table9",
    "ours",
    "search",
)


class TableModule(Protocol):
    """What each module of this package provides."""

    def needs(self, experiment: Experiment) -> Needs:
        """Return the measurements that the table needs."""

    def build(self, results: Results) -> Table:
        """Build the table from the measurements.

        Raises:
            MissingResult: if a measurement it needs does not exist; names the file.
        """


def module(name: str) -> TableModule:
    """Return the module that builds a table.

    Raises:
        ConfigError: if there is no such table.
    """
    if name not in TABLES:
        raise ConfigError(f"table {name!r}: no such table; there are {', '.join(TABLES)}")
    return import_module(f"prosparse.paper.tables.{name}")  # type: ignore[return-value]


def needs(name: str, experiment: Experiment) -> Needs:
    return module(name).needs(experiment)


def build(name: str, results: Results) -> Table:
    return module(name).build(results)


def write(name: str, layout: Layout) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX.

    Raises:
        ConfigError: if there is no such table.
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    table = build(name, Results(layout))
    written = []
    for suffix, render in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
        path = layout.table(name, suffix)
        write_text(path, render(table))
        written.append(path)
    return written
