"""Row by row, a pair's held-out loss and sparsity and its benchmark scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.reader import Results
from prosparse.paper.statistics.sample import Sample, Stratum
from prosparse.published.tables import GROUPS

Quantity = Literal["loss", "sparsity"]


def heldout_sample(
    results: Results, pair: str, quantity: Quantity, weights: Mapping[str, float] | None = None
) -> Sample:
    """Return a pair's loss (nats per token) or sparsity (percent) per held-out sequence; as ``sample_of``."""
    return sample_of(results, pair, results.heldout(*results.experiment.pair(pair)), quantity, weights)


def sample_of(
    results: Results,
    pair: str,
    entries: Sequence[dict[str, Any]],
    quantity: Quantity,
    weights: Mapping[str, float] | None = None,
) -> Sample:
    """Return the sample in the measurements of ``pair``, one per seed.

    Where the values of the sequences were not kept, their mean is the only row, and the interval is unknown.

    Args:
        weights: of the corpora; default: the mixture of all averages.
    """
    import numpy

    experiment = results.experiment
    scale = 100 if quantity == "sparsity" else 1
    strata = {}
    for name, weight in (_averaged(experiment) if weights is None else weights).items():
        corpora = [entry["corpora"][name] for entry in entries]
        values = [corpus.get("sequences", {quantity: [corpus[quantity]]})[quantity] for corpus in corpora]
        strata[name] = Stratum(weight, scale * numpy.array(values, float))
    deviation = experiment.seed_deviation
    assumed = None if deviation is None else getattr(deviation, quantity)
    return Sample(strata, frozenset({experiment.pair(pair)[0]}), assumed)


def keeps_sequences(results: Results) -> bool:
    """Return whether the measurements behind the paper's rows hold the values of every sequence."""
    pairs = [results.experiment.pair(pair) for pair in results.experiment.rows.values()]
    measured = [pair for pair in pairs if str(pair[1]) in results.activations(pair[0])]
    entries = [entry for pair in measured for entry in results.heldout(*pair)]
    return all("sequences" in corpus for entry in entries for corpus in entry["corpora"].values())


def _averaged(experiment: Experiment) -> dict[str, float]:
    mixture = experiment.data.mixtures[experiment.data.mixed]
    total = sum(mixture.values())
    return {name: weight / total for name, weight in mixture.items() if weight > 0}


def performance_sample(results: Results, pair: str) -> Sample | None:
    """Return a pair's score (percent) per benchmark row, weighted to average performance; None unless complete."""
    import numpy

    run, activation = results.experiment.pair(pair)
    if not results.benchmarks(run, activation).complete:
        return None
    seeds = results.benchmark_rows(run, activation)
    strata = {
        name: Stratum(1 / len(GROUPS) / len(benchmarks), 100 * numpy.array([rows[name] for rows in seeds], float))
        for benchmarks in GROUPS.values()
        for name in benchmarks
    }
    deviation = results.experiment.seed_deviation
    return Sample(strata, frozenset({run}), None if deviation is None else deviation.performance)
