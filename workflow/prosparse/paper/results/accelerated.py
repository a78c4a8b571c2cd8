"""The predictors and decodings that Table 2's left half shows, and why one is missing."""

from __future__ import annotations

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs

MARGINAL = "marginal"


#: Kind of predictor -> its description.
KINDS = {
    "nonzero": "non-zero labels",
    "top": "top labels",
    "svd": "SVD, untrained",
    MARGINAL: "frequency",
}


def kinds(experiment: Experiment) -> list[str]:
    """Return the kinds of predictor that are measured; decoding uses the first."""
    return [] if experiment.predictors is None else [*dict.fromkeys(experiment.predictors.kinds), MARGINAL]


def prediction_needs(experiment: Experiment) -> Needs:
    return Needs(prediction={_split(experiment, pair) for pair in table2_rows.predicted(experiment).values()})


def predicted_benchmarks_needs(experiment: Experiment) -> Needs:
    finals = {_split(experiment, pair) for pair in table2_rows.finals(experiment).values()}
    return Needs(benchmarks=finals, predicted_benchmarks=finals)


def decoding_needs(experiment: Experiment) -> Needs:
    if experiment.decoding is None:
        return Needs()
    return Needs(decoding=bool(table2_rows.decoded(experiment)), decoding_shapes=set(experiment.decoding.shapes))


def _split(experiment: Experiment, pair: str) -> tuple[str, str]:
    run, activation = experiment.pair(pair)
    return run, str(activation)


def missing_predictors(experiment: Experiment) -> str | None:
    """Say why nothing was predicted; None if it was."""
    if experiment.predictors is None:
        return "the experiment trains no predictors"
    return None if table2_rows.predicted(experiment) else "no run stands for a sparse row of Table 2"


def missing_decoding(experiment: Experiment) -> str | None:
    """Say why no decoding was timed; None if it was."""
    if experiment.decoding is None:
        return "the experiment times no decoding"
    return (
        None if table2_rows.decoded(experiment) or experiment.decoding.shapes else "no run stands for a row of Table 2"
    )
