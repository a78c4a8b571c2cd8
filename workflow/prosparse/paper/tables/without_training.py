"""Sparsity without training: thresholds on the originals, next to trained models."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.figures import Frontier
from prosparse.experiment.lineage import training_free_targets
from prosparse.experiment.training_free import CALIBRATION_TOKENS, PERPLEXITY_COST
from prosparse.paper.results.labels import label, untrained_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.samples import heldout_sample, sample_of
from prosparse.paper.results.value import Value
from prosparse.paper.statistics.sample import Sample
from prosparse.paper.tables.columns import LOSS, SPARSITY
from prosparse.paper.tables.notes import count
from prosparse.paper.tables.table import Cell, Column, Row, Table

INPUTS = Column("input_sparsity", "Input sparsity", "%")
SKIPPED = Column("skipped_weights", "FFN weights skipped", "%")
COST = Column("loss_over_original", "Over the original", "nats/token", 3)
PERPLEXITY = Column("perplexity_over_original", "Perplexity over the original", "%", 1)


def needs(experiment: Experiment) -> Needs:
    pairs = [pair for frontier in _frontiers(experiment).values() for pair in frontier.pairs()]
    return Needs.of_heldout(experiment, pairs) | Needs(training_free=set(training_free_targets(experiment)))


def build(results: Results) -> Table:
    experiment = results.experiment
    columns = [SPARSITY, INPUTS, SKIPPED, LOSS, COST, PERPLEXITY]
    table = Table("without_training", "Sparsity without training, next to trained models", columns, row_title="Method")
    frontiers = _frontiers(experiment)
    if not frontiers:
        table.note(f"Experiment `{experiment.experiment}` has none.")
        return table
    for title, frontier in frontiers.items():
        table.rows += _rows(results, title, frontier)
    table.notes += [
        "CATS zeroes small |act(gate)|, TEAL small inputs of the gate, up and down projections, CETT neurons whose "
        "output has a small norm: below a threshold per layer in the original model. Thresholds come from "
        f"{CALIBRATION_TOKENS:,} tokens of training text; all columns are measured on held-out text.",
        "The percentage after a method is its target sparsity on the training text. "
        f"Perplexity +{PERPLEXITY_COST:.0%}: the largest sparsity at which perplexity there rises by no more; for CETT "
        "this is CETT-PPL-1% of Sparsing Law (arXiv 2411.02335).",
        "Sparsity: zeros in x1, the input of the down projection, as for trained models. Input sparsity: zeros in the "
        "input of the gate and up projections.",
        "FFN weights skipped: those that an exact method does not read, without a predictor. ReLU and CATS know the "
        "inactive neurons after the gate projection and skip their up and down projections; TEAL skips what its zero "
        "inputs multiply in all three; CETT knows a neuron's output after gate and up, and skips its down projection.",
        "TEAL here has the same target in every layer and leaves attention dense; its authors also threshold "
        "attention's inputs and search each layer's sparsities.",
        "Over the original: the mean difference of held-out sequences, ± its standard error.",
        f"Experiment `{experiment.experiment}`, {count(len(experiment.seeds), 'seed')}.",
    ]
    return table


def _frontiers(experiment: Experiment) -> dict[str, Frontier]:
    return {title: each for title, each in experiment.figures.frontier.items() if each.training_free}


def _rows(results: Results, title: str, frontier: Frontier) -> Iterator[Row]:
    experiment, original = results.experiment, heldout_sample(results, frontier.original, "loss")
    run, activation = experiment.pair(frontier.original)

    def row(name: str, pair: str, cells: dict[str, Cell], loss: Sample | None) -> Row:
        cells |= _cost(loss.minus(original)) if loss else {}
        return Row(name, cells, pair, is_published=False, model=title)

    found = results.sparsity(run, activation)
    dense = {SPARSITY.key: Cell(found.sparsity), LOSS.key: Cell(found.loss)}
    yield row(label(experiment, frontier.original), f"{run}@{activation}", dense, None)
    for each in results.training_free(run, activation):
        cells = {
            SPARSITY.key: Cell(each.sparsity.sparsity),
            INPUTS.key: Cell(each.inputs),
            SKIPPED.key: Cell(each.skipped),
            LOSS.key: Cell(each.sparsity.loss),
        }
        name = untrained_label(each.method, each.target)
        loss = sample_of(results, frontier.original, each.seeds, "loss")
        yield row(name, f"{run}@{activation}, {each.method}", cells, loss)
    for pair in frontier.pairs()[1:]:
        name, trained = "@".join(map(str, experiment.pair(pair))), results.sparsity(*experiment.pair(pair))
        cells = {SPARSITY.key: Cell(trained.sparsity), LOSS.key: Cell(trained.loss)}
        if experiment.pair(pair)[1].name != "drelu":  # where up makes x1 zero too
            cells[SKIPPED.key] = Cell(Value(tuple(2 / 3 * share for share in trained.sparsity.seeds)))
        yield row(label(experiment, pair), name, cells, heldout_sample(results, pair, "loss"))


def _cost(difference: Sample) -> dict[str, Cell]:
    found = difference.estimate()
    return {
        COST.key: Cell(Value((found.mean,), (found.error,) if found.known else ())),
        PERPLEXITY.key: Cell(Value((100 * math.expm1(found.mean),))),
    }
