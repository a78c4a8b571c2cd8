"""Table 5: a constant regularization factor against ProSparse."""

from __future__ import annotations

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.final_factor import final_factor, final_factor_needs
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.by_setting import rows_needs
from prosparse.paper.tables.columns import BITS, FACTOR, LOSS, PERFORMANCE, SPARSITY, TOKENS
from prosparse.paper.tables.filler import Filler
from prosparse.paper.tables.notes import LEGEND, NORMALIZATION, budgets
from prosparse.paper.tables.table import Cell, Table
from prosparse.published.tables import published_table, row_key


def needs(experiment: Experiment) -> Needs:
    keys = {row_key("table5_constant_factor", row) for row in published_table("table5_constant_factor")}
    runs = {experiment.pair(pair)[0] for key, pair in experiment.rows.items() if key in keys}
    return rows_needs(experiment, "table5_constant_factor") | final_factor_needs(experiment, runs)


def build(results: Results) -> Table:
    filler = Filler(
        results,
        Table(
            "table5",
            "Table 5. Constant regularization factor against ProSparse",
            [FACTOR, SPARSITY, PERFORMANCE[-1], TOKENS, LOSS, BITS],
            notes=[LEGEND, NORMALIZATION, budgets()],
        ),
    )

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        return {FACTOR.key: Cell(final_factor(results, run))}

    for row in published_table("table5_constant_factor"):
        constant = row["lambda"] != "ProSparse"
        printed = {**row, "lambda": row["lambda"] if constant else ""}
        label = f"{row['scale']}, λ = {row['lambda']}" if constant else f"{row['scale']}, ProSparse"
        filler.table.rows.append(filler.row(label, row_key("table5_constant_factor", row), printed, extra))
    return filler.finish()
