"""Which run stands for which row of the paper."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.markdown import markdown_table
from prosparse.paper.results.labels import label
from prosparse.paper.results.origins import stands_in


def origins(experiment: Experiment) -> list[str]:
    rows: dict[tuple[str, str, str], list[str]] = {}
    for row, pair in experiment.rows.items():
        run, activation = experiment.pair(pair)
        named = (label(experiment, pair), f"`{run}@{activation}`", stands_in(experiment, row, run))
        rows.setdefault(named, []).append(row.replace("*", "\\*"))
    listed = [["; ".join(keys), *named] for named, keys in rows.items()]
    if not listed:
        return ["No run of this experiment stands for a row of the paper."]
    return markdown_table(["Rows of the paper", "Ours", "run@activation", "Trained from"], listed)
