"""Table 4: baselines without regularization, at two token budgets."""

from __future__ import annotations

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import tokens
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import exact
from prosparse.paper.tables.by_setting import rows_needs
from prosparse.paper.tables.columns import BITS, LOSS, PERFORMANCE, SPARSITY, TOKENS, billions
from prosparse.paper.tables.filler import Filler
from prosparse.paper.tables.notes import LEGEND
from prosparse.paper.tables.table import Cell, Table
from prosparse.published.tables import published_table, row_key


def needs(experiment: Experiment) -> Needs:
    return rows_needs(experiment, "table4_regularization_free")


def build(results: Results) -> Table:
    filler = Filler(
        results,
        Table(
            "table4",
            "Table 4. Baselines without regularization, at two token budgets",
            [TOKENS, SPARSITY, PERFORMANCE[-1], LOSS, BITS],
            notes=[LEGEND, "Accumulated tokens: since the activation substitution."],
        ),
    )

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        return {TOKENS.key: Cell(exact(tokens(results.experiment, run)))}

    for row in published_table("table4_regularization_free"):
        amount = row["accumulated_tokens_billion"]
        key = row_key("table4_regularization_free", row)
        printed = {**row, TOKENS.key: billions(amount)}
        filler.table.rows.append(filler.row(f"{row['setting']}, {amount} B tokens", key, printed, extra))
    return filler.finish()
