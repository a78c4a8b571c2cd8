"""Table 2, left half: every kind of activation predictor."""

from __future__ import annotations

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import accelerated
from prosparse.paper.results.accelerated import KINDS, MARGINAL
from prosparse.paper.results.chance import averaged, originals
from prosparse.paper.results.labels import label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import no_run
from prosparse.paper.results.prediction import Prediction, read_prediction
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.acceleration_cells import (
    PREDICTED_SPARSITY,
    RECALL,
    WITHOUT_SHIFTING,
    missing_cell,
    note_missing,
    note_origins,
    note_predictor,
)
from prosparse.paper.tables.operator_cells import SPARSITY
from prosparse.paper.tables.scores import average_cell, marked, note_chance
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table
from prosparse.published.settings import settings


def build(results: Results) -> Table:
    experiment = results.experiment
    table = Table(
        "table2_predictors",
        "Table 2, left half. Activation predictors",
        [
            SPARSITY,
            RECALL,
            Column("precision", "Precision (%)", "%"),
            PREDICTED_SPARSITY,
            Column("marginal_recall", "Recall by frequency, same predicted sparsity (%)", "%"),
            Column("loss", "Loss, exact", "nats/token", 3),
            Column("predicted_loss", "Loss, predicted", "nats/token", 3),
            Column("performance", "Average performance, exact (%)", "%"),
            Column("predicted_performance", "Average performance, predicted (%)", "%"),
        ],
        row_title="Setting and kind",
        notes=[
            "Activation recall: share of the active elements that are predicted active. Precision: share of the "
            "elements predicted active that are active. Predicted sparsity: share of all elements that are predicted "
            "inactive. All on held-out text, averaged over layers.",
            "Frequency: a baseline that predicts a neuron active if it was active in enough training tokens, "
            "regardless of the current token. Recall by frequency: that baseline's recall at the row's predicted "
            "sparsity. Recall beyond that is what a predictor has learned about tokens.",
            "Loss and average performance, predicted: with all neurons that are predicted inactive skipped.",
            WITHOUT_SHIFTING,
        ],
    )
    pairs, names = table2_rows.predicted(experiment), accelerated.kinds(experiment)
    finals = table2_rows.finals(experiment)
    gone: dict[str, list[str]] = {}
    for setting in settings():
        if setting.is_dense:
            continue
        if setting.name not in pairs:
            reason = no_run(setting.name) if setting.name not in table2_rows.decoded(experiment) else ""
            reason = reason or accelerated.missing_predictors(experiment) or "its activation has no zeros to predict"
            gone.setdefault(reason, []).append(setting.name)
            table.rows.append(
                Row(setting.name, {c.key: missing_cell(reason, setting.printed.get(c.key, "")) for c in table.columns})
            )
            continue
        found = read_prediction(results, pairs[setting.name])
        for kind in names:
            is_first = kind == names[0]
            cells = _of_kind(found, kind, setting.printed if is_first else {})
            if is_first and setting.name in finals:
                cells |= _performance(table, results, setting.name, pairs[setting.name])
            pair = f"{pairs[setting.name]}, {KINDS[kind]}"
            model = f"{label(experiment, pairs[setting.name])}, {KINDS[kind]}"
            table.rows.append(Row(setting.name, cells, pair, is_first, model))
    note_predictor(table, experiment)
    if pairs and experiment.predictors is not None:
        note_origins(table, results, pairs)
        table.note(
            f"Kinds. {KINDS['nonzero'].capitalize()}: trained, active means x1 is not 0. {KINDS['top'].capitalize()}: "
            f"trained, active means the largest {experiment.predictors.top:.0%} of |x1|. {KINDS['svd']}: the gate's "
            "singular vectors."
        )
    note_chance(table)
    note_missing(table, gone)
    return table


def _of_kind(found: Prediction, kind: str, printed: dict[str, str]) -> dict[str, Cell]:
    shown = found.kinds[kind]
    note = f"{KINDS[kind]}, decision threshold {found.decision_threshold:g}"
    cells = {
        SPARSITY.key: Cell(found.sparsity, printed.get(SPARSITY.key, "")),
        RECALL.key: Cell(shown.recall, printed.get(RECALL.key, ""), note),
        "precision": Cell(shown.precision, note=note if shown.precision else f"{MISSING}: nothing is predicted active"),
        PREDICTED_SPARSITY.key: Cell(shown.predicted_sparsity, printed.get(PREDICTED_SPARSITY.key, ""), note),
        "loss": Cell(found.loss),
    }
    if kind != MARGINAL:
        cells["marginal_recall"] = Cell(
            found.kinds[MARGINAL].recall_at(shown.predicted_sparsity), note="interpolated between decision thresholds"
        )
    if shown.loss is not None:
        cells["predicted_loss"] = Cell(shown.loss, note=note)
    return cells


def _performance(table: Table, results: Results, row: str, pair: str) -> dict[str, Cell]:
    run, activation = results.experiment.pair(pair)
    chosen = averaged(results, row, run)
    found = {
        "performance": results.benchmarks(run, activation),
        "predicted_performance": results.predicted_benchmarks(run, activation),
    }
    cells = {}
    for key, benchmarks in found.items():
        column = benchmarks.average(chosen.columns)
        cell = average_cell(column, chosen)
        if cell.note:
            table.note(f"{cell.note}.")
        cells[key] = marked(cell, column.chance)
    return cells


def needs(experiment: Experiment) -> Needs:
    finals = [(row, experiment.pair(pair)[0]) for row, pair in table2_rows.finals(experiment).items()]
    return (
        accelerated.prediction_needs(experiment)
        | accelerated.predicted_benchmarks_needs(experiment)
        | originals(experiment, finals)
    )
