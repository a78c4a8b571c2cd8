"""Which files our numbers come from, and how each was made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prosparse.experiment.data import PAPER_DATASETS
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims.registry import CLAIMS
from prosparse.paper.tables.acceleration_cells import PREDICTED_SPARSITY, RECALL
from prosparse.paper.tables.columns import BITS, LOSS, SPARSITY, TOKENS
from prosparse.paper.tables.table import Column, Row, Table
from prosparse.published.tables import BENCHMARKS, GROUPS

HELDOUT = {SPARSITY.key, LOSS.key, BITS.key, "mixed", "loss", *PAPER_DATASETS}
SCORES = {*GROUPS, *BENCHMARKS, "average_performance", "performance"}
PREDICTED = {RECALL.key, PREDICTED_SPARSITY.key, "precision", "marginal_recall", "predicted_loss"}
CONFIGURED = {"lambda", "threshold", "learning_rate", "steps", "accumulated_steps", TOKENS.key, "tokens"}


@dataclass
class Sources:
    """Numbers the files that the page's numbers come from, so that the page holds each one's description once."""

    layout: Layout
    numbers: dict[Path, int] = field(default_factory=dict)

    def of_cell(self, table: Table, row: Row, column: Column) -> list[int]:
        """Return the numbers of the files behind our value; the config's where it is a setting."""
        return self.of_files(self._measurements(table, row, column))

    def of_pair(self, pair: str) -> list[int]:
        """Return the numbers of the files with a pair's held-out sparsity and loss."""
        run, _ = self.layout.experiment.pair(pair)
        return self.of_files([self.layout.sparsity(run, seed) for seed in self.layout.experiment.seeds])

    def of_claim(self, number: int) -> list[int]:
        """Return the numbers of the files that a claim is judged by."""
        files = CLAIMS.needs(f"claim{number}", self.layout.experiment).files(self.layout)
        return self.of_files([path for paths in files.values() for path in paths])

    def of_files(self, paths: list[Path]) -> list[int]:
        return [self.numbers.setdefault(path, len(self.numbers)) for path in paths if path.exists()]

    def link(self, number: int) -> str:
        return self.layout.relative(list(self.numbers)[number])

    def described(self) -> list[dict[str, Any]]:
        """Return every file's path and what its provenance says, in the order of the numbers."""
        return [{"path": self.layout.relative(path), **_made(path)} for path in self.numbers]

    def _measurements(self, table: Table, row: Row, column: Column) -> list[Path]:
        layout, key = self.layout, column.key
        seeds = layout.experiment.seeds
        if key.startswith(("step2", "step3")) or table.name.startswith("table2_operators"):
            return [layout.operators(), layout.trained_operators()]
        if table.name == "schedules":
            return _compared(layout, row, key)
        found = _checkpoint(layout.experiment, row.pair)
        if table.name == "table2_decoding" and key in (LOSS.key, SPARSITY.key):
            return [layout.precision()]
        if found is None or table.name.startswith("table2_decoding"):
            shapes = layout.experiment.decoding.shapes if layout.experiment.decoding else {}
            return [layout.decoding(), *(layout.decoding(shape) for shape in shapes)]
        run, stage, activation = found
        if table.name == "without_training":
            if row.pair != f"{run}@{activation}":  # the original under thresholds
                return [layout.training_free(run, activation, seed) for seed in seeds]
            return [layout.sparsity(run, seed) for seed in seeds]
        if table.name == "target_sparsity":
            return _steered(layout, run, key)
        if key == "predicted_performance":
            return [layout.predicted_benchmarks(run, activation, seed) for seed in seeds]
        if key in PREDICTED:
            return [layout.prediction(run, activation, seed) for seed in seeds]
        if key in SCORES:
            return [layout.benchmarks(run, activation, seed) for seed in seeds]
        if key in HELDOUT:
            return [layout.sparsity(run, seed) for seed in seeds]
        if key in CONFIGURED:
            return [layout.config()]
        if key in ("sparsity", "lm_loss"):  # the last values of a stage's ledger
            return [layout.provenance(run, stage, seed) for seed in seeds]
        return [layout.decoding()]


def _compared(layout: Layout, row: Row, key: str) -> list[Path]:
    """Return the measurements behind a method's row of table ``schedules``."""
    if key in CONFIGURED:
        return [layout.config()]
    comparison = layout.experiment.schedules.comparisons[row.cells["comparison"].text]
    runs = [layout.experiment.pair(pair)[0] for pair in comparison.methods[row.label]]
    return [layout.sparsity(run, seed) for run in runs for seed in layout.experiment.seeds]


def _steered(layout: Layout, run: str, key: str) -> list[Path]:
    """Return the measurements behind a run's row of table ``target_sparsity``."""
    seeds = layout.experiment.seeds
    if key == "target_sparsity":
        return [layout.config()]
    if key in ("lambda", "swing"):
        return [layout.provenance(run, len(layout.experiment.runs[run].stages) - 1, seed) for seed in seeds]
    return [layout.sparsity(run, seed) for seed in seeds]


def _checkpoint(experiment: Experiment, pair: str | None) -> tuple[str, int | None, str] | None:
    """Return (run, stage, activation) of ``run@activation`` or ``run, stage 2``; None if it is neither."""
    words, _, rest = (pair or "").partition(", ")
    if words.partition("@")[0] not in experiment.runs:
        return None
    run, activation = experiment.pair(words)
    return run, int(rest.removeprefix("stage ")) if rest.startswith("stage ") else None, str(activation)


def _made(path: Path) -> dict[str, Any]:
    """Return what a file's provenance says; the config has none."""
    block = json.loads(path.read_text(encoding="utf-8")).get("provenance") or {}
    names = {"started": "measured", "processor": "processor", "device": "device", "code_revision": "code"}
    return {name: block[key] for key, name in names.items() if key in block}
