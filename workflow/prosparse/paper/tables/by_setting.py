"""Tables whose rows are settings (Tables 1, 3 and 8)."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.chance import averaged, originals
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
    """Add a row with the scores of chance; an average only if all rows average the same columns."""
    pairs = {row.label: row.pair for row in table.rows if row.pair}
    columns = {averaged(results, key, results.experiment.pair(pair)[0]).columns for key, pair in pairs.items()}
    for pair in pairs.values():
        measured = results.benchmarks(*results.experiment.pair(pair))
        chances = {name: measured.column(name).chance for name in GROUPS} | measured.chances
        if len(columns) == 1:
            chances["average_performance"] = measured.average(*columns).chance
        cells = {
            column.key: Cell(chance, note="score without reading the question")
            for column in table.columns
            if (chance := chances.get(column.key)) is not None
        }
        if cells:
            table.rows.append(Row("Chance level", cells, is_published=False))
            return


def rows_needs(experiment: Experiment, source: str) -> Needs:
    """Return the sparsity and benchmarks of the pairs that stand for rows of a published table, and of originals."""
    keys = [key for row in published_table(source) if (key := row_key(source, row)) in experiment.rows]
    runs = [(key, experiment.pair(experiment.rows[key])[0]) for key in keys]
    return Needs.of_pairs(experiment, (experiment.rows[key] for key in keys)) | originals(experiment, runs)
