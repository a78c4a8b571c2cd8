"""Extra rows of Table 1: MMLU and BBH answered by the likelihood of the candidates"""

from __future__ import annotations

from prosparse.paper.results.benchmarks import LIKELIHOODS
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.scores import marked, note_chance, score_cell
from prosparse.paper.tables.table import Cell, Row, Table
from prosparse.published.tables import LABELS


def add_likelihoods(results: Results, table: Table) -> None:
    """Add a row below each of ours, and one with the scores of chance; none if nothing was asked for."""
    rows: list[Row] = []
    chances: dict[str, Cell] = {}
    for row in table.rows:
        rows.append(row)
        if row.pair is None:
            continue
        measured = results.likelihoods(*results.experiment.pair(row.pair))
        asked = [name for name in LIKELIHOODS if name in measured.scores or name in measured.missing]
        cells = {name: marked(score_cell(measured, name), measured.chances.get(name)) for name in asked}
        if cells:
            rows.append(Row(f"{row.label}, by likelihood", cells, row.pair, is_published=False, model=row.model))
        chances |= {
            name: Cell(chance, note="score without reading the question") for name, chance in measured.chances.items()
        }
        for name, detail in measured.details.items():
            open_rows = detail["left_out"]
            left_out = f"; {open_rows} more rows have open answers and are left out" if open_rows else ""
            table.note(f"By likelihood, {LABELS[name]}: {detail['metric']}, on {detail['n']} rows{left_out}.")
    if chances:
        rows.append(Row("Chance level, by likelihood", chances, is_published=False))
        table.note(
            "By likelihood: ours, not the paper's, and in no average. The same rows as those answered by generation, "
            "answered by the candidate of the highest mean log-likelihood per token."
        )
    table.rows = rows
    note_chance(table)
