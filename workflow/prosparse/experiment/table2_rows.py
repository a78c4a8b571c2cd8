"""Which pair stands for which row of Table 2, and what is timed for the row."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.published.settings import settings
from prosparse.published.tables import SCALES


def trained(experiment: Experiment) -> dict[str, str]:
    """Return the rows that a run stands for -> ``run@activation``, whose own patterns the operators are timed with.

    Excludes dReLU: step (3) skips more neurons than the gate's, and how many depends on the up projection's values.
    """
    names = [setting.name for setting in settings() if setting.name in experiment.rows]
    pairs = {name: _whole(experiment, experiment.rows[name]) for name in names}
    return {row: pair for row, pair in pairs.items() if experiment.pair(pair)[1].name != "drelu"}


def decoded(experiment: Experiment) -> dict[str, str]:
    """Return the rows with a model to decode -> ``run@activation``; a dense row is its original's."""
    found = {}
    for setting in settings():
        row = SCALES[setting.scale][0] if setting.is_dense else setting.name
        if row in experiment.rows:
            found[setting.name] = _whole(experiment, experiment.rows[row])
    return found


def predicted(experiment: Experiment) -> dict[str, str]:
    """Return those of ``decoded`` that have predictors: SiLU has no zeros to predict."""
    if experiment.predictors is None:
        return {}
    return {row: pair for row, pair in decoded(experiment).items() if experiment.pair(pair)[1].name != "silu"}


def finals(experiment: Experiment) -> dict[str, str]:
    """Return those of ``predicted`` that also answer benchmarks under prediction: the final ProSparse rows."""
    names = {final for _, _, final in SCALES.values()}
    return {
        row: pair
        for row, pair in predicted(experiment).items()
        if row in names and experiment.answers_benchmarks(*experiment.pair(pair))
    }


def densities(experiment: Experiment) -> dict[str, list[float]]:
    """Return, for each scale with timed operators, the paper's densities and the config's other ones, descending."""
    if experiment.operators is None:
        return {}
    found: dict[str, list[float]] = {}
    for scale in experiment.operators.shapes:
        papers = {setting.density for setting in settings() if setting.scale == scale and not setting.is_dense}
        others = {d for d in experiment.operators.densities if all(abs(d - paper) > 0.005 for paper in papers)}
        found[scale] = sorted(papers | others, reverse=True)
    return found


def _whole(experiment: Experiment, pair: str) -> str:
    """Return ``run`` or ``run@activation`` with its activation."""
    run, activation = experiment.pair(pair)
    return f"{run}@{activation}"
