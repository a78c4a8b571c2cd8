"""Cells of benchmark scores: what is at chance, missing, or left out of an average."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from prosparse.paper.results.benchmarks import BenchmarkColumn, Benchmarks, above_chance
from prosparse.paper.results.chance import Averaged
from prosparse.paper.results.value import Value
from prosparse.paper.tables.table import MISSING, NOT_PUBLISHED, Cell, Table
from prosparse.published.tables import LABELS

AT_CHANCE = "°"


PARTIAL = "†"


def score_cell(benchmarks: Benchmarks, name: str) -> Cell:
    """Return the cell of a single benchmark."""
    if name not in benchmarks.scores:
        return Cell(note=f"{MISSING}: {benchmarks.missing[name]}")
    return Cell(benchmarks.scores[name])


def column_cell(name: str, column: BenchmarkColumn) -> Cell:
    """Return the cell of one of the seven columns; its note says what is missing."""
    if not column.missing:
        return Cell(column.value)
    label = LABELS[name]
    each = {LABELS[key]: reason.rstrip(".") for key, reason in column.missing.items()}
    if column.value is None:
        gone = "; ".join(reason if key == label else f"{key}: {reason}" for key, reason in each.items())
        return Cell(note=f"{label}: {MISSING} ({gone})")
    gone = "; ".join(f"{key} ({reason})" for key, reason in each.items())
    return Cell(column.value, note=f"{PARTIAL} {label}: mean of {_labels(column.used)}; missing: {gone}", mark=PARTIAL)


def average_cell(column: BenchmarkColumn, averaged: Averaged) -> Cell:
    """Return the cell of an average over the columns ``averaged``; its note names the columns that do not enter."""
    label = LABELS["average_performance"]
    missing = f"; missing: {_labels(column.missing)}" if column.missing else ""
    if column.value is None:
        if not averaged.at_chance:
            gone = "; ".join(f"{LABELS[key]}: {reason.rstrip('.')}" for key, reason in column.missing.items())
            return Cell(note=f"{label}: {MISSING} ({gone})")
        note = f"{label}: none, since *{averaged.original}* is not above chance in any column{missing}"
        return Cell(text=NOT_PUBLISHED, note=note)
    if averaged.at_chance:
        chance = "" if column.chance is None else f" (chance: {column.chance.mean:.2f})"
        note = (
            f"{PARTIAL} {label}: mean of {_labels(column.used)}{chance}; left out: {_labels(averaged.at_chance)}, "
            f"where *{averaged.original}* is not above chance{missing}; the paper averages all seven "
            "columns"
        )
    elif column.missing:
        note = f"{PARTIAL} {label}: mean of the {len(column.used)} measured columns of 7{missing}"
    else:
        return Cell(column.value)
    return Cell(column.value, note=note, mark=PARTIAL)


def marked(cell: Cell, chance: Value | None) -> Cell:
    """Mark a score that is not above chance."""
    if cell.ours is None or above_chance(cell.ours, chance):
        return cell
    assert chance is not None  # every score is above an unknown chance
    note = "; ".join(filter(None, [cell.note, f"not above chance ({chance.mean:.2f})"]))
    return replace(cell, mark=cell.mark + AT_CHANCE, note=note)


def note_chance(table: Table) -> None:
    """Explain the mark where the table has it."""
    if any(AT_CHANCE in cell.mark for row in table.rows for cell in row.cells.values()):
        table.note(f"`{AT_CHANCE}`: not above chance by more than two standard errors.")


def _labels(names: Iterable[str]) -> str:
    return ", ".join(LABELS[name] for name in names)
