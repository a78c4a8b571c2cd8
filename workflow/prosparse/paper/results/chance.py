"""The benchmark columns that are averaged: those where the original is above chance.

A sparse model is compared with the original that it started from, so the original's scores choose the columns for all
rows of a scale, and their averages stay comparable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import lineage
from prosparse.paper.results.labels import label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.settings import scale_of
from prosparse.published.tables import GROUPS, SCALES


@dataclass(frozen=True)
class Averaged:
    """The columns that a row averages, and those left out because the model ``original`` is not above chance."""

    columns: tuple[str, ...]
    at_chance: tuple[str, ...] = ()
    original: str | None = None


def original(experiment: Experiment, row: str | None, run: str) -> str | None:
    """Return the benchmarked pair of the original of a published row's scale; without a row, of the run's lineage."""
    ancestors = {name for name, _ in lineage(experiment, run)}
    for scale, (key, *_) in SCALES.items():
        if key in experiment.rows and (row is None or scale_of(row) == scale):
            name, activation = experiment.pair(experiment.rows[key])
            if (row is not None or name in ancestors) and experiment.answers_benchmarks(name, activation):
                return f"{name}@{activation}"
    return None


def originals(experiment: Experiment, rows: Iterable[tuple[str | None, str]]) -> Needs:
    """Need the benchmarks of the originals whose scores choose what is averaged in each (published row, run)."""
    found = {original(experiment, row, run) for row, run in rows}
    return Needs(benchmarks={(run, str(own)) for run, own in (experiment.pair(pair) for pair in found if pair)})


def averaged(results: Results, row: str | None, run: str) -> Averaged:
    """Return the columns to average; all measured ones if the experiment benchmarks no original."""
    pair = original(results.experiment, row, run)
    if pair is None:
        return Averaged(tuple(GROUPS))
    measured = results.benchmarks(*results.experiment.pair(pair))
    columns = {name: measured.column(name) for name in GROUPS}
    at_chance = tuple(name for name, column in columns.items() if column.value is not None and not column.above_chance)
    return Averaged(tuple(name for name in GROUPS if name not in at_chance), at_chance, label(results.experiment, pair))
