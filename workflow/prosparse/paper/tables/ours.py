"""Our own comparisons, which the paper does not have."""

from __future__ import annotations

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.chance import originals
from prosparse.paper.results.final_factor import final_factor, final_factor_needs
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.columns import BITS, FACTOR, LOSS, PERFORMANCE, SPARSITY, TOKENS
from prosparse.paper.tables.filler import Filler
from prosparse.paper.tables.notes import NORMALIZATION, SPREAD, budgets
from prosparse.paper.tables.table import Cell, Table


def needs(experiment: Experiment) -> Needs:
    runs = {experiment.pair(pair)[0] for pair in experiment.ours.values()}
    measured = Needs.of_pairs(experiment, experiment.ours.values()) | final_factor_needs(experiment, runs)
    return measured | originals(experiment, [(None, run) for run in runs])


def build(results: Results) -> Table:
    experiment = results.experiment
    columns = [TOKENS, FACTOR, *PERFORMANCE, SPARSITY, LOSS, BITS]
    table = Table("ours", "Our own comparisons: runs that the paper does not have", columns)
    if not experiment.ours:
        table.note(f"Experiment `{experiment.experiment}` has none.")
        return table

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        return {FACTOR.key: Cell(final_factor(results, run))}

    table.notes += [SPREAD, budgets(), NORMALIZATION]
    filler = Filler(results, table)
    table.rows += [filler.own_row(label, pair, extra) for label, pair in experiment.ours.items()]
    return filler.finish()
