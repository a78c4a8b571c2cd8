"""Tables whose rows are settings (Tables 1, 3 and 8)."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.columns import TOKENS, billions
from prosparse.paper.tables.filler import Filler
from prosparse.paper.tables.notes import LEGEND
from prosparse.paper.tables.table import Cell, Column, Row, Table
from prosparse.published.tables import GROUPS, published_table, published_tokens, row_key


def by_setting(results: Results, name: str, title: str, source: str, columns: list[Column], *notes: str) -> Table:
    """Build a table whose rows are settings (Tables 1, 3 and 8)."""
    filler = Filler(results, Table(name, title, columns, notes=[LEGEND, *notes]))
    for row in published_table(source):
        amount = published_tokens().get(row["setting"])
        printed = {**row, TOKENS.key: billions(amount)} if amount else row
        filler.table.rows.append(filler.row(row["setting"], row["setting"], printed))
    return filler.finish()


def add_chance(results: Results, table: Table) -> None:
    """Add a row with the scores of random guessing."""
    for text in [row.pair for row in table.rows if row.pair]:
        measured = results.benchmarks(*results.experiment.pair(text))
        cells: dict[str, Cell] = {}
        for column in table.columns:
            if column.key in measured.chances:
                cells[column.key] = Cell(measured.chances[column.key])
            elif column.key in GROUPS:
                cells[column.key] = Cell(measured.column(column.key).chance)
            elif column.key == "average_performance":
                cells[column.key] = Cell(measured.average().chance)
        cells = {key: Cell(cell.ours, note="score of random guessing") for key, cell in cells.items() if cell.ours}
        if cells:
            table.rows.append(Row("Chance level", cells, is_published=False))
            return


def rows_needs(experiment: Experiment, source: str) -> Needs:
    """Return the sparsity and benchmarks of the pairs that stand for rows of a published table."""
    keys = [row_key(source, row) for row in published_table(source)]
    return Needs.of_pairs(experiment, (experiment.rows[key] for key in keys if key in experiment.rows))
