"""Runs whose λ is steered to a target sparsity: what they reach. Ours, not the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from prosparse.experiment.experiment import Experiment
from prosparse.method.schedule import stage_at
from prosparse.paper.results.labels import label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.value import Value, exact
from prosparse.paper.tables.columns import LOSS, SPARSITY, final_value, layer_cells
from prosparse.paper.tables.notes import count
from prosparse.paper.tables.table import Cell, Column, Row, Table

TARGET = Column("target_sparsity", "Target", "%", 1)
DEVIATION = Column("deviation", "Held-out sparsity minus target", "points")
SWING = Column("swing", "Swing in the last tenth", "points")
FACTOR = Column("lambda", "Final λ", "", 2)
DEAD = Column("dead_neurons", "Dead neurons", "%", 1)
LEAST = Column("least_sparse_layer", "Least sparse layer", "%", 1)


def needs(experiment: Experiment) -> Needs:
    runs = _steered(experiment)
    return Needs.of_heldout(experiment, runs) | Needs.of_chains(experiment, runs)


def build(results: Results) -> Table:
    experiment = results.experiment
    columns = [TARGET, SPARSITY, DEVIATION, SWING, FACTOR, LOSS, DEAD, LEAST]
    table = Table("target_sparsity", "Sparsity on demand: λ steered to a target", columns, row_title="Run")
    targets = _steered(experiment)
    if not targets:
        table.note(f"Experiment `{experiment.experiment}` has none.")
        return table
    for run, target in targets.items():
        try:
            cells = _cells(results, run, target)
        except MissingResult:
            cells = {column.key: Cell(note="not measured") for column in columns} | {TARGET.key: Cell(exact(target))}
        table.rows.append(Row(label(experiment, run), cells, run, is_published=False))
    table.notes += [
        "The last stage names the sparsity to end at instead of a peak λ. A controller steers λ by the sparsity of "
        "each step; it has no setting to tune.",
        "Swing in the last tenth: a third of its logged steps is averaged at a time, because each measures sparsity on "
        "its own training batch; the greatest of the three means minus the least.",
        "Sparsity and loss: held-out. Dead neurons: no held-out token activates them; mean over layers. Layers count "
        "from 0.",
        "Ours, not the paper's.",
        f"Experiment `{experiment.experiment}`, {count(len(experiment.seeds), 'seed')}.",
    ]
    return table


def _steered(experiment: Experiment) -> dict[str, float]:
    """Return the target (percent) of every run that ends in a stage with one."""
    targets = {run: chosen.stages[-1].target_sparsity for run, chosen in experiment.runs.items()}
    return {run: 100 * target for run, target in targets.items() if target is not None}


def _cells(results: Results, run: str, target: float) -> dict[str, Cell]:
    found = results.sparsity(run, results.experiment.runs[run].activation)
    stages = results.experiment.runs[run].stages
    end = stages[-1].until
    _, start = stage_at(stages, end)
    last = [row.sparsity.seeds for row in results.ledger(run) if row.step > end - max(1, (end - start) // 10)]
    swings = [_swing(seed) for seed in zip(*last, strict=True)] if len(last) >= 3 else []
    return {
        TARGET.key: Cell(exact(target)),
        SPARSITY.key: Cell(found.sparsity),
        DEVIATION.key: Cell(Value(tuple(each - target for each in found.sparsity.seeds))),
        SWING.key: Cell(Value(tuple(swings)) if swings else None),
        FACTOR.key: Cell(final_value([seed["final"] for seed in results.stage(run, len(stages) - 1)], "lambda")),
        LOSS.key: Cell(found.loss),
        **layer_cells(found.layers, found.dead_neurons),
    }


def _swing(sparsities: Sequence[float]) -> float:
    """Return the greatest minus the least mean of three consecutive parts, of equal size but for the last."""
    size = len(sparsities) // 3
    means = [fmean(part) for part in (sparsities[:size], sparsities[size : 2 * size], sparsities[2 * size :])]
    return max(means) - min(means)
