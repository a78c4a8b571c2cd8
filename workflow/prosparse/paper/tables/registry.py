"""The tables, in the order of the page."""

from __future__ import annotations

from pathlib import Path

from prosparse.experiment.layout import Layout
from prosparse.paper.registry import Registry
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.table import Table
from prosparse.paper.tables.text import to_csv, to_latex, to_markdown
from prosparse.system.files import write_text

TABLES = Registry[Table](
    "table",
    __package__,
    (
        "table1",
        "table1_early_baselines",
        "table2",
        "table2_decoding",
        "table2_decoding_limit",
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
        "schedules",
        "target_sparsity",
        "without_training",
        "search",
    ),
)


def write(name: str, layout: Layout) -> list[Path]:
    """Write a table as CSV, Markdown and LaTeX.

    Raises:
        ConfigError: if there is no such table.
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    table = TABLES.build(name, Results(layout))
    written = []
    for suffix, render in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
        path = layout.table(name, suffix)
        write_text(path, render(table))
        written.append(path)
    return written
