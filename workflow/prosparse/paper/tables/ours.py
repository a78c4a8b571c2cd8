"""Our own comparisons, which the paper does not have."""

from __future__ import annotations

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.chance import originals
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import exact
from prosparse.paper.tables.columns import BITS, FACTOR, LOSS, PERFORMANCE, SPARSITY, TOKENS
from prosparse.paper.tables.filler import Filler
from prosparse.paper.tables.notes import NORMALIZATION, SPREAD, budgets
from prosparse.paper.tables.table import Cell, Table


def needs(experiment: Experiment) -> Needs:
    runs = {experiment.pair(pair)[0] for pair in experiment.ours.values()}
    return Needs.of_pairs(experiment, experiment.ours.values()) | originals(experiment, [(None, run) for run in runs])


def build(results: Results) -> Table:
    experiment = results.experiment
    columns = [TOKENS, FACTOR, *PERFORMANCE, SPARSITY, LOSS, BITS]
    table = Table("ours", "Our own comparisons: runs that the paper does not have", columns)
    if not experiment.ours:
        table.note(f"Experiment `{experiment.experiment}` has none.")
        return table

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        return {FACTOR.key: Cell(exact(experiment.runs[run].stages[-1].peak))}

    table.notes += [SPREAD, budgets(), NORMALIZATION]
    filler = Filler(results, table)
    table.rows += [filler.own_row(label, pair, extra) for label, pair in experiment.ours.items()]
    return filler.finish()
