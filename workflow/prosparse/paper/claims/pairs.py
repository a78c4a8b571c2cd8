"""The pairs that claims compare."""

from __future__ import annotations

from collections.abc import Iterable

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.labels import label, model_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import stands_in
from prosparse.paper.results.reader import Results
from prosparse.paper.results.samples import heldout_sample
from prosparse.paper.statistics.estimate import Estimate
from prosparse.paper.statistics.sample import Sample
from prosparse.published.tables import SCALES


def pair_of(experiment: Experiment, key: str) -> str | None:
    """Return the pair of a published row with its activation written out."""
    text = experiment.rows.get(key)
    return None if text is None else written_out(experiment, text)


def written_out(experiment: Experiment, text: str) -> str:
    """Return a pair with its activation written out."""
    run, activation = experiment.pair(text)
    return f"{run}@{activation}"


def named(results: Results, pair: str) -> str:
    """Return the name of a pair for a sentence: in italics, since it contains commas."""
    return f"*{label(results.experiment, pair)}*"


def sized(results: Results, scale: str, pair: str) -> str:
    """Return a pair's model, and for which of the paper's sizes it stands: ``small (for 7B)``."""
    run, _ = results.experiment.pair(pair)
    model = model_label(results.experiment, run)
    is_stand_in = stands_in(results.experiment, SCALES[scale][2], run).startswith("stand-in")
    return f"{model} (for {scale})" if is_stand_in else model


def sparsity_of(results: Results, pair: str) -> Sample:
    return heldout_sample(results, pair, "sparsity")


def sparser(results: Results, pair: str, than: str) -> Estimate:
    """Estimate by how many points ``pair`` is sparser, on the same rows and seeds."""
    return sparsity_of(results, pair).minus(sparsity_of(results, than)).estimate()


def rows_needs(experiment: Experiment, keys: Iterable[str]) -> Needs:
    """Return the sparsity and benchmarks of the pairs that stand for published rows."""
    return Needs.of_pairs(experiment, (experiment.rows[key] for key in keys if key in experiment.rows))
