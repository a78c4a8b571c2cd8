"""Table 9: FATReLU thresholds."""

from __future__ import annotations

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import exact
from prosparse.paper.tables.by_setting import rows_needs
from prosparse.paper.tables.columns import BITS, LOSS, PERFORMANCE, SPARSITY
from prosparse.paper.tables.filler import Filler
from prosparse.paper.tables.notes import LEGEND
from prosparse.paper.tables.table import MISSING, Cell, Column, Table
from prosparse.published.tables import published_table, row_key


def needs(experiment: Experiment) -> Needs:
    return rows_needs(experiment, "table9_threshold_sweep")


def build(results: Results) -> Table:
    threshold = Column("threshold", "Threshold t", "", None)
    filler = Filler(
        results,
        Table(
            "table9",
            "Table 9. Activation threshold shifting: FATReLU thresholds",
            [threshold, SPARSITY, *PERFORMANCE, LOSS, BITS],
            notes=[LEGEND],
        ),
    )

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        if activation.name not in ("relu", "fatrelu"):
            return {threshold.key: Cell(note=f"{MISSING}: {activation} has no threshold")}
        return {threshold.key: Cell(exact(activation.parameter or 0.0))}

    for row in published_table("table9_threshold_sweep"):
        key = row_key("table9_threshold_sweep", row)
        filler.table.rows.append(filler.row(f"{row['model']}, t = {row['threshold']}", key, row, extra))
    return filler.finish()
