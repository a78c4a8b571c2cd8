"""Columns, cells and notes shared by Table 2 and its left half's details."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.decoding import Decoding, Model
from prosparse.paper.results.labels import label
from prosparse.paper.results.origins import origin_note, stands_in
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table

RECALL = Column("activation_recall", "Activation recall (%)", "%")


PREDICTED_SPARSITY = Column("predicted_sparsity", "Predicted sparsity (%)", "%")


WITHOUT_SHIFTING = "`*`: without activation threshold shifting."


def missing_cell(reason: str, printed: str = "") -> Cell:
    return Cell(published=printed, note=f"{MISSING}: {reason}")


def note_origins(table: Table, results: Results, pairs: dict[str, str]) -> None:
    """Note which of our models stand for the rows."""
    origins: dict[str, list[str]] = {}
    for row, pair in pairs.items():
        origins.setdefault(stands_in(results.experiment, row, results.experiment.pair(pair)[0]), []).append(pair)
    for words, found in origins.items():
        table.note(origin_note(words, (label(results.experiment, pair) for pair in found)))


def note_missing(table: Table, what: dict[str, list[str]]) -> None:
    """Note what is missing; ``what`` maps each reason to what is missing because of it."""
    for reason, names in what.items():
        table.note(f"Missing: {'; '.join(dict.fromkeys(names))}: {reason}.")


def note_predictor(table: Table, experiment: Experiment) -> None:
    chosen = experiment.predictors
    if chosen is None:
        return
    rules = {
        "nonzero": "trained; a neuron counts as active if x1 is not 0",
        "top": f"trained; a neuron counts as active if |x1| is among the largest {chosen.top:.0%} of its token",
        "svd": "the gate's singular vectors, untrained",
    }
    table.note(
        f"Our predictor: {rules[chosen.kinds[0]]}; rank {chosen.rank}, decision threshold "
        f"{chosen.decision_threshold:g}. The paper does not say which labels it used for which row. The other kinds "
        "are in *Activation predictors*."
    )


def note_conditions(table: Table, decodings: list[Decoding]) -> None:
    """Note the conditions of our decoding."""
    for decoding in decodings:
        if decoding.shape is None:
            table.note(
                f"Ours, trained models: {decoding.conditions}. Medians over prompts. The fixed cost per token matters "
                "more in a smaller model, so do not compare tokens/s across sizes."
            )
        else:
            table.note(f"Ours, synthetic {decoding.shape}: {decoding.conditions}. Medians over prompts.")


def decoded_row(results: Results, model: Model, way: str, cells: dict[str, Cell]) -> Row:
    """Return the row of a model in one precision; ``way`` ends its label."""
    named = "" if model.raw["synthetic"] or model.pair is None else label(results.experiment, model.pair)
    return Row(f"{model.label}, {model.precision}{way}", cells, model.pair, is_published=False, model=named)
