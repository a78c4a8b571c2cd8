"""The pairs that stand for rows of Table 2, and which of them get predictors and timed decoding."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.published.settings import settings
from prosparse.published.tables import SCALES

MARGINAL = "marginal"


#: Kind of predictor -> its description.
KINDS = {
    "nonzero": "non-zero labels",
    "top": "top labels",
    "svd": "SVD, untrained",
    MARGINAL: "frequency",
}


def pairs(experiment: Experiment) -> dict[str, str]:
    """Return Table 2's rows that a run stands for -> ``run@activation``; a dense row is its original's."""
    found = {}
    for setting in settings():
        row = SCALES[setting.scale][0] if setting.is_dense else setting.name
        if row in experiment.rows:
            run, activation = experiment.pair(experiment.rows[row])
            found[setting.name] = f"{run}@{activation}"
    return found


def predicted_pairs(experiment: Experiment) -> dict[str, str]:
    """Return those of ``pairs`` that have predictors: SiLU has no zeros to predict."""
    if experiment.predictors is None:
        return {}
    return {row: pair for row, pair in pairs(experiment).items() if experiment.pair(pair)[1].name != "silu"}


def final_pairs(experiment: Experiment) -> dict[str, str]:
    """Return those of ``predicted_pairs`` that also answer benchmarks under prediction: the final ProSparse rows."""
    finals = {final for _, _, final in SCALES.values()}
    return {
        row: pair
        for row, pair in predicted_pairs(experiment).items()
        if row in finals and experiment.answers_benchmarks(*experiment.pair(pair))
    }


def kinds(experiment: Experiment) -> list[str]:
    """Return the kinds of predictor that are measured; decoding uses the first."""
    return [] if experiment.predictors is None else [*dict.fromkeys(experiment.predictors.kinds), MARGINAL]


def prediction_needs(experiment: Experiment) -> Needs:
    return Needs(prediction={_split(experiment, pair) for pair in predicted_pairs(experiment).values()})


def predicted_benchmarks_needs(experiment: Experiment) -> Needs:
    finals = {_split(experiment, pair) for pair in final_pairs(experiment).values()}
    return Needs(benchmarks=finals, predicted_benchmarks=finals)


def decoding_needs(experiment: Experiment) -> Needs:
    if experiment.decoding is None:
        return Needs()
    return Needs(decoding=bool(pairs(experiment)), decoding_shapes=set(experiment.decoding.shapes))


def _split(experiment: Experiment, pair: str) -> tuple[str, str]:
    run, activation = experiment.pair(pair)
    return run, str(activation)


def missing_predictors(experiment: Experiment) -> str | None:
    """Say why nothing was predicted; None if it was."""
    if experiment.predictors is None:
        return "the experiment trains no predictors"
    return None if predicted_pairs(experiment) else "no run stands for a sparse row of Table 2"


def missing_decoding(experiment: Experiment) -> str | None:
    """Say why no decoding was timed; None if it was."""
    if experiment.decoding is None:
        return "the experiment times no decoding"
    return None if pairs(experiment) or experiment.decoding.shapes else "no run stands for a row of Table 2"
