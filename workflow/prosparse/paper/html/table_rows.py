"""A table as the page's template shows it: each cell holds our number and the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from prosparse.paper.html.prose import inline
from prosparse.paper.html.sources import Sources
from prosparse.paper.tables.scores import AT_CHANCE
from prosparse.paper.tables.table import MISSING, NOT_PUBLISHED, Cell, Column, Row, Table
from prosparse.paper.tables.text import our_text, published_text, unit_text


@dataclass(frozen=True)
class ShownCell:
    """Attributes: ``sort``: the number to sort by; ``files``: numbers of the files behind our value."""

    ours: str
    paper: str
    sort: str
    note: str
    link: str
    files: list[int]
    is_missing: bool


@dataclass(frozen=True)
class ShownRow:
    label: str
    model: str
    cells: list[ShownCell]


@dataclass(frozen=True)
class ShownColumn:
    label: str
    at_chance: bool  # no number of ours in it is above chance


@dataclass(frozen=True)
class ShownTable:
    name: str
    title: str
    row_title: str
    columns: list[ShownColumn]
    rows: list[ShownRow]
    notes: list[Markup]


def shown(table: Table, sources: Sources) -> ShownTable:
    return ShownTable(
        table.name,
        table.title,
        table.row_title,
        [ShownColumn(column.label + unit_text(column), _at_chance(table, column)) for column in table.columns],
        [_row(table, row, sources) for row in table.rows],
        [inline(note) for note in table.notes],
    )


def _at_chance(table: Table, column: Column) -> bool:
    ours = [cell for row in table.rows if (cell := row.cells.get(column.key)) is not None and cell.ours is not None]
    return bool(ours) and all(AT_CHANCE in cell.mark for cell in ours)


def _row(table: Table, row: Row, sources: Sources) -> ShownRow:
    cells = []
    for column in table.columns:
        cell = row.cells.get(column.key)
        cells.append(_cell(table, row, column, cell, sources))
    return ShownRow(row.label, row.model or (row.pair or "" if row.is_published else ""), cells)


def _cell(table: Table, row: Row, column: Column, cell: Cell | None, sources: Sources) -> ShownCell:
    if cell is None:
        return ShownCell(NOT_PUBLISHED, "", "", "", "", [], False)
    paper = published_text(cell) if row.is_published else ""
    paper = "" if paper == NOT_PUBLISHED else paper
    if cell.ours is None and not cell.text:
        return ShownCell(MISSING, paper, _number(cell.published), cell.note, "", [], True)
    files = sources.of_cell(table, row, column)
    sort: Any = f"{cell.ours.mean:.10g}" if cell.ours is not None else cell.text
    link = sources.link(files[0]) if files else ""
    return ShownCell(our_text(cell, column), paper, sort, cell.note, link, files, False)


def _number(text: str) -> str:
    try:
        return f"{float(text):.10g}"
    except ValueError:
        return ""
