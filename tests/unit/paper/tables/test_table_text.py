"""Tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv

import pytest

from prosparse.paper.tables import registry as tables
from prosparse.paper.tables.text import latex_escape, to_latex, to_markdown
from prosparse.published.tables import GROUPS


def test_csv_is_tidy(several_seeds):
    tables.write("table1", several_seeds.layout)
    lines = list(csv.DictReader((several_seeds.directory / "tables" / "table1.csv").open()))
    columns = len(GROUPS) + 5
    assert len(lines) == 11 * columns + 7  # seven measured columns of the chance row
    cell = next(x for x in lines if (x["row"], x["column"]) == ("ProSparse-7B*", "average_sparsity"))
    assert float(cell["ours"]) == pytest.approx(88.7)
    assert float(cell["spread"]) == pytest.approx(0.1)
    assert (cell["published"], cell["unit"], cell["pair"]) == ("88.11", "%", "progressive@relu")
    assert cell["note"].startswith("stand-in: llama")


def test_markdown_rows_have_as_many_cells_as_the_header(several_seeds):
    for name in tables.TABLES:
        text = to_markdown(tables.TABLES.build(name, several_seeds.results))
        bars = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
        assert len(bars) == 1, name
        assert "nan" not in text


def test_latex_is_escaped_ascii_with_even_rows(several_seeds):
    assert latex_escape(r"50 % of a_b & `c` {x} ±†") == r"50 \% of a\_b \& c \{x\} $\pm$$^\dagger$"
    assert latex_escape("\\") == r"\textbackslash{}"
    for name in tables.TABLES:
        text = to_latex(tables.TABLES.build(name, several_seeds.results))
        assert text.isascii()
        assert "?" not in text
        assert text.count("{") == text.count("}")
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
