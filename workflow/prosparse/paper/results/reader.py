"""Read an experiment's measurements from their JSON and CSV files.

Shares (sparsity, benchmark scores) are in percent, as the paper prints them; losses are in nats per token. Nothing is
filled in: a missing file is an error, and a benchmark that was not run is listed with the reason.
"""

from __future__ import annotations

import copy
import csv
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from prosparse.experiment.activation import Activation
from prosparse.experiment.layout import Layout
from prosparse.paper.results.benchmarks import LIKELIHOODS, Benchmarks
from prosparse.paper.results.sparsity import Sparsity, StageSparsity, TrainingFreeSparsity
from prosparse.paper.results.value import Value
from prosparse.published.tables import BENCHMARKS
from prosparse.system.errors import UserError

#: The paper's benchmarks, each under its own name.
PAPERS = {name: name for name in BENCHMARKS}


class MissingResult(UserError):
    """A requested result does not exist; the message names the file."""


@dataclass(frozen=True)
class LedgerRow:
    """A row of a run's training ledger, averaged over seeds; sparsity in percent."""

    stage: int
    step: int
    tokens: float
    factor: float
    lm_loss: float
    sparsity: Value


class Results:
    """An experiment's measured values."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.experiment = layout.experiment
        self._read: dict[Path, Any] = {}

    def of_seeds(self, seeds: list[int]) -> Results:
        """Return the values that were measured with some of the experiment's seeds."""
        narrowed = copy.copy(self)
        narrowed.experiment = self.experiment.model_copy(update={"seeds": seeds})
        narrowed.layout = replace(self.layout, experiment=narrowed.experiment)
        return narrowed

    def _json(self, path: Path) -> Any:
        if path not in self._read:
            try:
                self._read[path] = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise MissingResult(f"{path}: no such result") from None
            except json.JSONDecodeError as error:
                raise MissingResult(f"{path}: not a JSON file ({error})") from None
        return self._read[path]

    # ----------------------------------------------------------------------- measurements

    def activations(self, run: str) -> list[str]:
        """Return the activations under which every seed of a run was measured; none if a seed has no file."""
        paths = [self.layout.sparsity(run, seed) for seed in self.experiment.seeds]
        if not all(path.exists() for path in paths):
            return []
        measured = [[entry["activation"] for entry in self._json(path)["measurements"]] for path in paths]
        return [activation for activation in measured[0] if all(activation in each for each in measured)]

    def heldout(self, run: str, activation: Activation | str) -> list[dict[str, Any]]:
        """Return the measurements of a pair on held-out text, one per seed (``measure/sparsity.py``).

        Raises:
            MissingResult: if the file does not exist or lacks the activation; names both.
        """
        entries = []
        for seed in self.experiment.seeds:
            path = self.layout.sparsity(run, seed)
            measured = {entry["activation"]: entry for entry in self._json(path)["measurements"]}
            if str(activation) not in measured:
                raise MissingResult(f"{path}: activation {activation} not measured; it has {', '.join(measured)}")
            entries.append(measured[str(activation)])
        return entries

    def sparsity(self, run: str, activation: Activation | str) -> Sparsity:
        """Return the held-out sparsity and loss of a pair; raises as ``heldout``."""
        return Sparsity.of(self.heldout(run, activation))

    def stage_sparsity(self, run: str) -> list[StageSparsity]:
        """Return the held-out sparsity and loss after every stage of a run, in order of steps.

        The first entry is the checkpoint that the run starts from, if another run made it.

        Raises:
            MissingResult: if the file does not exist.
        """
        files = [self._json(self.layout.stage_sparsity(run, seed)) for seed in self.experiment.seeds]
        return [
            StageSparsity(seeds[0]["stage"], seeds[0]["step"], Sparsity.of(seeds), seeds)
            for seeds in zip(*(file["measurements"] for file in files), strict=True)
        ]

    def training_free(self, run: str, activation: Activation | str) -> list[TrainingFreeSparsity]:
        """Return the held-out sparsity and loss of a dense pair under every method and setting without training.

        Raises:
            MissingResult: if the file does not exist.
        """
        files = [self._json(self.layout.training_free(run, activation, seed)) for seed in self.experiment.seeds]
        return [TrainingFreeSparsity.of(seeds) for seeds in zip(*(file["measurements"] for file in files), strict=True)]

    def benchmarks(self, run: str, activation: Activation | str) -> Benchmarks:
        """Return the benchmark scores of a pair; a benchmark that any seed lacks is missing.

        Raises:
            MissingResult: if the file does not exist.
        """
        if not self.experiment.answers_benchmarks(run, activation):
            tasks = self.experiment.benchmarks.tasks
            reason = "not benchmarked in this experiment" if tasks else "this experiment runs no benchmark"
            return Benchmarks({}, {}, {}, dict.fromkeys(BENCHMARKS, reason))
        return self._benchmarks([self.layout.benchmarks(run, activation, seed) for seed in self.experiment.seeds])

    def benchmark_rows(self, run: str, activation: Activation | str) -> list[dict[str, list[float]]]:
        """Return the scores of a pair's benchmark rows by benchmark, once per seed; the same rows for every pair.

        Raises:
            MissingResult: if a file does not exist or holds no scores per row.
        """
        seeds = []
        for seed in self.experiment.seeds:
            path = self.layout.benchmarks(run, activation, seed)
            scores = self._json(path)["benchmarks"]
            if without := [name for name, entry in scores.items() if "rows" not in entry]:
                raise MissingResult(f"{path}: no scores per row of {', '.join(without)}; answer the benchmarks again")
            seeds.append({name: entry["rows"] for name, entry in scores.items()})
        return seeds

    def likelihoods(self, run: str, activation: Activation | str) -> Benchmarks:
        """Like ``benchmarks``, of the columns that the paper answers by generation, by the candidates' likelihood.

        Empty if the experiment does not ask for any.
        """
        asked = {name: task for name, task in LIKELIHOODS.items() if task in self.experiment.benchmarks.tasks}
        if not asked or not self.experiment.answers_benchmarks(run, activation):
            return Benchmarks({}, {}, {}, {})
        return self._benchmarks(
            [self.layout.benchmarks(run, activation, seed) for seed in self.experiment.seeds], asked
        )

    def predicted_benchmarks(self, run: str, activation: Activation | str) -> Benchmarks:
        """Like ``benchmarks``, but skipping the neurons that the predictor calls inactive."""
        return self._benchmarks(
            [self.layout.predicted_benchmarks(run, activation, seed) for seed in self.experiment.seeds]
        )

    def _benchmarks(self, paths: list[Path], asked: Mapping[str, str] = PAPERS) -> Benchmarks:
        files = [self._json(path) for path in paths]
        scores: dict[str, Value] = {}
        chances: dict[str, Value] = {}
        details: dict[str, dict[str, Any]] = {}
        missing: dict[str, str] = {}
        for name, task in asked.items():
            rows = [file["benchmarks"].get(task) for file in files]
            if any(row is None for row in rows):
                reasons = [file.get("missing", {}).get(task) for file in files]
                missing[name] = next((reason for reason in reasons if reason), "not run in this experiment")
                continue
            errors = tuple(100 * row["standard_error"] for row in rows if row.get("standard_error") is not None)
            scores[name] = Value(tuple(100 * row["score"] for row in rows), errors if len(errors) == len(rows) else ())
            if rows[0].get("chance") is not None:
                chances[name] = Value((100 * rows[0]["chance"],))
            details[name] = rows[0]
        return Benchmarks(scores, chances, details, missing)

    def prediction(self, run: str, activation: Activation | str) -> list[dict[str, Any]]:
        """Return how well the pair's active neurons are predicted, once per seed (``measure/prediction.py``).

        Raises:
            MissingResult: if the file does not exist.
        """
        return [self._json(self.layout.prediction(run, activation, seed)) for seed in self.experiment.seeds]

    def decoding(self, shape: str | None = None) -> dict[str, Any]:
        """Return the decoding speed of the trained models or of a shape's synthetic ones (``measure/decoding.py``).

        Raises:
            MissingResult: if the file does not exist.
        """
        return self._json(self.layout.decoding(shape))

    def precision(self) -> dict[str, Any]:
        """Return the trained models' loss and sparsity in each precision of decoding (``measure/precision.py``).

        Raises:
            MissingResult: if the file does not exist.
        """
        return self._json(self.layout.precision())

    def operators(self) -> dict[str, Any]:
        """Return the measured times of the sparse operators (``measure/operators.py``).

        Raises:
            MissingResult: if the file does not exist.
        """
        return self._json(self.layout.operators())

    def trained_operators(self) -> dict[str, Any]:
        """Return their times with trained models' own activation patterns.

        Raises:
            MissingResult: if the file does not exist.
        """
        return self._json(self.layout.trained_operators())

    # --------------------------------------------------------------------------- training

    def stage(self, run: str, stage: int) -> list[dict[str, Any]]:
        """Return a stage's provenance.json of every seed."""
        return [self._json(self.layout.provenance(run, stage, seed)) for seed in self.experiment.seeds]

    def ledger(self, run: str) -> list[LedgerRow]:
        """Return the ledger of the run's whole chain of stages: the steps that every seed logged.

        Raises:
            MissingResult: if a stage's ledger.csv does not exist.
        """
        merged: list[LedgerRow] = []
        for stage in range(len(self.experiment.runs[run].stages)):
            seeds = []
            for seed in self.experiment.seeds:
                path = self.layout.ledger(run, stage, seed)
                try:
                    with open(path, newline="", encoding="utf-8") as file:
                        seeds.append({int(float(row["step"])): row for row in csv.DictReader(file)})
                except FileNotFoundError:
                    raise MissingResult(f"{path}: no such result") from None
            for step in sorted(set.intersection(*(set(rows) for rows in seeds))):
                rows = [ledger[step] for ledger in seeds]
                merged.append(
                    LedgerRow(
                        stage=stage,
                        step=step,
                        tokens=statistics.fmean(float(row["tokens"]) for row in rows),
                        factor=statistics.fmean(float(row["lambda"]) for row in rows),
                        lm_loss=statistics.fmean(float(row["lm_loss"]) for row in rows),
                        sparsity=Value(tuple(100 * float(row["sparsity"]) for row in rows)),
                    )
                )
        return merged

    # ---------------------------------------------------------------------------- corpora

    @cached_property
    def corpora(self) -> dict[str, list[dict[str, Any]] | None]:
        """Return the counts of each corpus's shards; None if one has not been read."""
        found = {name: self.layout.documents_counts(name) for name in self.experiment.data.corpora}
        return {
            name: [self._json(path) for path in paths] if all(path.exists() for path in paths) else None
            for name, paths in found.items()
        }

    def manifest(self, tokenizer: str, corpus: str) -> dict[str, Any] | None:
        path = self.layout.manifest(tokenizer, corpus)
        return self._json(path) if path.exists() else None
