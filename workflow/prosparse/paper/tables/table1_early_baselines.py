"""Table 1, early baselines: vanilla ReLU, shifted ReLU and fixed L1."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.by_setting import by_setting, rows_needs
from prosparse.paper.tables.columns import BITS, LOSS, PERFORMANCE, SPARSITY, TOKENS
from prosparse.paper.tables.likelihood import add_likelihoods
from prosparse.paper.tables.notes import budgets
from prosparse.paper.tables.table import Table


def needs(experiment: Experiment) -> Needs:
    return rows_needs(experiment, "table1_early_baselines")


def build(results: Results) -> Table:
    table = by_setting(
        results,
        "table1_early_baselines",
        "Table 1, early baselines. Vanilla ReLU, shifted ReLU and fixed L1",
        "table1_early_baselines",
        [SPARSITY, *PERFORMANCE, TOKENS, LOSS, BITS],
        budgets(),
    )
    add_likelihoods(results, table)
    return table
