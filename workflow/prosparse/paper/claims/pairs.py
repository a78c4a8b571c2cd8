"""The pairs that claims compare."""

from __future__ import annotations

from collections.abc import Iterable

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results


def pair_of(experiment: Experiment, key: str) -> str | None:
    """Return the pair of a published row with its activation written out."""
    text = experiment.rows.get(key)
    if text is None:
        return None
    run, activation = experiment.pair(text)
    return f"{run}@{activation}"


def sparsity_of(results: Results, pair: str) -> float:
    return results.sparsity(*results.experiment.pair(pair)).sparsity.mean


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def rows_needs(experiment: Experiment, keys: Iterable[str]) -> Needs:
    """Return the sparsity and benchmarks of the pairs that stand for published rows."""
    return Needs.of_pairs(experiment, (experiment.rows[key] for key in keys if key in experiment.rows))
