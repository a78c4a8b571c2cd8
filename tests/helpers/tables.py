"""What tests of tables share."""

from __future__ import annotations

from prosparse.paper.tables.table import Cell, Row, Table


def row_of(table: Table, label: str, pair: str | None = None) -> Row:
    return next(row for row in table.rows if row.label == label and pair in (None, row.pair))


def cells_of(table: Table, label: str, pair: str | None = None) -> dict[str, Cell]:
    return row_of(table, label, pair).cells
