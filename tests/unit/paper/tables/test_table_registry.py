"""Every table: its needs, its rows, and what it says when nothing was measured."""

from __future__ import annotations

import csv
import io

import pytest

from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables import registry as tables
from prosparse.paper.tables.text import to_csv, to_latex, to_markdown
from prosparse.published.tables import published_table
from prosparse.system.errors import ConfigError


def test_unknown_table_lists_the_known(nothing):
    with pytest.raises(ConfigError, match="table9"):
        tables.write("table10", nothing.layout)


def test_every_table_needs_what_it_reads(synthetic):
    """Only the files a table names may be there, and it must be written from them."""
    for name in tables.TABLES:
        needs = tables.TABLES.needs(name, synthetic.experiment)
        allowed = {path for paths in needs.files(synthetic.layout).values() for path in paths}
        read = []

        class Recording(Results):
            def _json(self, path):
                read.append(path)  # noqa: B023
                return super()._json(path)

        tables.TABLES.build(name, Recording(synthetic.layout))
        assert set(read) <= allowed, name
        assert set(read) == allowed, f"{name} asks for more than it reads"


@pytest.mark.parametrize("name", ["ours", "without_training", "search"])
def test_a_table_without_rows_says_so_in_a_line_and_need_nothing(nothing, name):
    assert tables.TABLES.needs(name, nothing.experiment) == Needs()
    heading, _, line = to_markdown(tables.TABLES.build(name, nothing.results)).splitlines()
    assert heading.startswith("# ")
    assert line == "Experiment `synthetic` has none."


def test_nothing_measured_renders_everywhere(nothing):
    for name in tables.TABLES:
        table = tables.TABLES.build(name, nothing.results)
        for render in (to_csv, to_markdown, to_latex):
            assert render(table)
        lines = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert all(line["ours"] == "" and line["note"].startswith("missing") for line in lines), name


def test_every_published_table_with_rows_of_ours_keeps_the_papers_order(nothing):
    names = {
        "table1": "table1_overall",
        "table3": "table3_benchmarks",
        "table8": "table8_dataset_sparsity",
        "table9": "table9_threshold_sweep",
    }
    for name, source in names.items():
        table = tables.TABLES.build(name, nothing.results)
        printed = published_table(source)
        assert len(table.rows) == len(printed)
        for row, original in zip(table.rows, printed, strict=True):
            shared = set(original) & set(row.cells)
            assert len(shared) >= 8
            assert all(row.cells[key].published == original[key] for key in shared)
