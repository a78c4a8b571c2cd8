"""The measurements that a table, figure or claim needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout


@dataclass
class Needs:
    """The measurements that an output needs.

    Holds runs, (run, activation), (run, stage), whether the operators (also with
    trained models' patterns) and decoding are timed, the shapes of
    ``experiment.decoding`` at which decoding is timed, the runs whose sparsity is measured after every stage, whether
    loss is measured in each precision of decoding, and the pairs that thresholds make sparse without training.
    """

    sparsity: set[str] = field(default_factory=set)
    benchmarks: set[tuple[str, str]] = field(default_factory=set)
    stages: set[tuple[str, int]] = field(default_factory=set)
    operators: bool = False
    prediction: set[tuple[str, str]] = field(default_factory=set)
    predicted_benchmarks: set[tuple[str, str]] = field(default_factory=set)
    decoding: bool = False
    decoding_shapes: set[str] = field(default_factory=set)
    stage_sparsity: set[str] = field(default_factory=set)
    trained_operators: bool = False
    precision: bool = False
    training_free: set[tuple[str, str]] = field(default_factory=set)

    def __or__(self, other: Needs) -> Needs:
        return Needs(*(getattr(self, each.name) | getattr(other, each.name) for each in fields(self)))

    @classmethod
    def of_pairs(cls, experiment: Experiment, pairs: Iterable[str]) -> Needs:
        """Need the sparsity and benchmarks of each pair (``run`` or ``run@activation``)."""
        needs = cls()
        for text in pairs:
            run, activation = experiment.pair(text)
            needs.sparsity.add(run)
            if experiment.answers_benchmarks(run, activation):
                needs.benchmarks.add((run, str(activation)))
        return needs

    @classmethod
    def of_heldout(cls, experiment: Experiment, pairs: Iterable[str]) -> Needs:
        """Need the sparsity and held-out loss of each pair."""
        return cls(sparsity={experiment.pair(pair)[0] for pair in pairs})

    @classmethod
    def of_chains(cls, experiment: Experiment, runs: Iterable[str]) -> Needs:
        """Need every stage of each run."""
        return cls(stages={(run, stage) for run in runs for stage in range(len(experiment.runs[run].stages))})

    def files(self, layout: Layout) -> dict[str, list[Path]]:
        """Return the JSON files that hold the measurements, by kind of job."""
        seeds = layout.experiment.seeds
        stages = [layout.provenance(run, stage, seed) for run, stage in sorted(self.stages) for seed in seeds]
        return {
            "training": list(dict.fromkeys(stages)),  # runs share stages
            "sparsity": [layout.sparsity(run, seed) for run in sorted(self.sparsity) for seed in seeds],
            "stage_sparsity": [
                layout.stage_sparsity(run, seed) for run in sorted(self.stage_sparsity) for seed in seeds
            ],
            "benchmarks": [layout.benchmarks(*pair, seed) for pair in sorted(self.benchmarks) for seed in seeds],
            "operators": [layout.operators()] if self.operators else [],
            "trained_operators": [layout.trained_operators()] if self.trained_operators else [],
            "prediction": [layout.prediction(*pair, seed) for pair in sorted(self.prediction) for seed in seeds],
            "predicted_benchmarks": [
                layout.predicted_benchmarks(*pair, seed) for pair in sorted(self.predicted_benchmarks) for seed in seeds
            ],
            "training_free": [
                layout.training_free(*pair, seed) for pair in sorted(self.training_free) for seed in seeds
            ],
            "precision": [layout.precision()] if self.precision else [],
            "decoding": [
                *([layout.decoding()] if self.decoding else []),
                *(layout.decoding(shape) for shape in sorted(self.decoding_shapes)),
            ],
        }

    def inputs(self, layout: Layout) -> list[Path]:
        """Return every file that is read for the measurements, the ledgers of the stages included."""
        ledgers = [layout.ledger(run, stage, seed) for run, stage in self.stages for seed in layout.experiment.seeds]
        return sorted({*(path for paths in self.files(layout).values() for path in paths), *ledgers})
