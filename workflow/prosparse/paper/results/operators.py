"""Measurements of the sparse FFN operators (Table 2, right half).

Step (2) is the up projection of the active neurons, step (3) the down projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.quartiles import Quartiles
from prosparse.paper.results.reader import MissingResult, Results

#: The paper's step number -> suffix of the step's arms in the measurements.
STEPS = {2: "up", 3: "down"}


@dataclass(frozen=True)
class Case:
    """One shape at one density. An arm is one way to compute a step, or to read its bytes."""

    hidden_size: int
    intermediate_size: int
    density: float
    raw: dict[str, Any]

    def microseconds(self, arm: str, protocol: str = "cold") -> Quartiles:
        return Quartiles.read(self.raw[protocol][arm]["microseconds"])

    def speedup(self, arm: str, over: str) -> Quartiles:
        """Return how many times faster ``arm`` is than ``over``, round by round, with cold caches."""
        if arm == over:
            return Quartiles(1.0, 1.0, 1.0)
        return Quartiles.read(self.raw["cold"][arm]["times_faster_than"][over])

    def share(self, arm: str, limit: str = "stream") -> Quartiles:
        """Return bytes/s as a share of a limit's in the same rounds, with cold caches."""
        return Quartiles.read(self.raw["cold"][arm][f"share_of_{limit}"])

    def measured(self, arm: str) -> bool:
        return arm in self.raw["cold"]

    def bandwidth(self, limit: str) -> float:
        """Return the median bytes/s of ``stream`` or ``rows``."""
        return 1e9 * float(self.raw["cold"][limit]["gigabytes_per_second"]["median"])


def machine(raw: dict[str, Any]) -> str:
    """Describe the machine: a GPU's name, or the processor and its threads."""
    if raw["device"] != "cpu":
        return str(raw["device"])
    threads = f"{raw['threads']} thread{'s' if raw['threads'] > 1 else ''}"
    processor = raw.get("provenance", {}).get("processor", "")
    return f"CPU ({processor}; {threads})" if processor else f"CPU ({threads})"


class Timings:
    """Operator times, as a file holds them."""

    def __init__(self, file: Path, raw: dict[str, Any]) -> None:
        self._file = file
        self.device: str = raw["device"]
        self.threads: int = raw["threads"]
        self.dtype: str = raw["dtype"]
        self.rounds: int = raw["rounds"]
        self.cache_bytes: int = raw["last_level_cache_bytes"]
        self.memory_bytes: int = raw["memory_bytes"]
        self.large_pages: bool = raw["large_pages"]
        self.machine = machine(raw)
        self._cases = [
            Case(case["hidden_size"], case["intermediate_size"], case["density"], case) for case in raw["cases"]
        ]

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def of_scale(self, scale: str) -> list[Case]:
        """Return the cases with random patterns at a scale's shape, densest first.

        Raises:
            MissingResult: if there is none.
        """
        found = [case for case in self._cases if case.raw.get("scale") == scale]
        if not found:
            raise MissingResult(f"{self._file}: no operator times of {scale}")
        return sorted(found, key=lambda case: case.density, reverse=True)

    def at(self, scale: str, density: float) -> Case:
        """Return the case nearest to a requested density, which whole neurons round.

        Raises:
            MissingResult: if none was measured there.
        """
        found = min(self.of_scale(scale), key=lambda case: abs(case.density - density))
        if abs(found.density - density) > 1 / found.intermediate_size:
            raise MissingResult(f"{self._file}: no operator times of {scale} at density {density:g}")
        return found

    def of_row(self, row: str) -> Case:
        """Return the case with a trained model's own patterns.

        Raises:
            MissingResult: if there is none.
        """
        for case in self._cases:
            if case.raw.get("row") == row:
                return case
        raise MissingResult(f"{self._file}: no operator times of the row {row}")


def read(results: Results) -> Timings | None:
    """Read the operator times at the config's shapes; None if the experiment times no operators.

    Raises:
        MissingResult: if it does but its times do not exist.
    """
    return None if results.experiment.operators is None else Timings(results.layout.operators(), results.operators())


def read_trained(results: Results) -> Timings | None:
    """Read the operator times with trained models' own patterns; None if the experiment has none.

    Raises:
        MissingResult: if it has but they do not exist.
    """
    if not times_trained(results.experiment):
        return None
    return Timings(results.layout.trained_operators(), results.trained_operators())


def times_trained(experiment: Experiment) -> bool:
    """Return whether operators are timed with trained models' own patterns."""
    return experiment.operators is not None and bool(table2_rows.trained(experiment))


def missing(experiment: Experiment, scale: str) -> str | None:
    """Say why a scale has no times; None if it has."""
    if experiment.operators is None:
        return "the experiment times no operators"
    if scale not in experiment.operators.shapes:
        return f"the experiment times no operators of the {scale} shape"
    return None
