"""Table 1: performance and sparsity of every setting."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.by_setting import add_chance, by_setting, rows_needs
from prosparse.paper.tables.columns import BITS, LOSS, PERFORMANCE, SPARSITY, TOKENS
from prosparse.paper.tables.likelihood import add_likelihoods
from prosparse.paper.tables.notes import budgets
from prosparse.paper.tables.table import Table


def needs(experiment: Experiment) -> Needs:
    return rows_needs(experiment, "table1_overall")


def build(results: Results) -> Table:
    table = by_setting(
        results,
        "table1",
        "Table 1. Overall: performance and sparsity",
        "table1_overall",
        [SPARSITY, LOSS, *PERFORMANCE, TOKENS, BITS],
        budgets(),
    )
    add_chance(results, table)
    add_likelihoods(results, table)
    return table
