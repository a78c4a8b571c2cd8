"""The sparse FFN operators (Table 2, right half): what the paper times, what was measured, and two models of the time.

Step (2) is the up projection of the active neurons, step (3) the down projection.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from prosparse.config import Experiment
from prosparse.paper import published
from prosparse.paper.origins import scale_of
from prosparse.paper.results import MissingResult, Results

#: The paper's number of a step -> how the names of what does it end in the measurements.
STEPS = {2: "up", 3: "down"}


#: Peak memory bandwidth in bytes/s, from NVIDIA's data sheets (A100: 2,039 GB/s; H100: 3.35 TB/s).
PEAK_BANDWIDTHS = {"A100": ("A100 80 GB SXM", 2039e9), "H100": ("H100 80 GB SXM", 3350e9)}

# -------------------------------------------------------------------------------- the settings


@dataclass(frozen=True)
class Setting:
    """A row of Table 2; its dense rows print no sparsity."""

    name: str
    scale: str
    printed: dict[str, str]

    @property
    def is_dense(self) -> bool:
        return not self.printed["average_sparsity"]

    @property
    def density(self) -> float:
        return 1.0 if self.is_dense else round(1 - float(self.printed["average_sparsity"]) / 100, 6)

    def microseconds(self, step: int) -> float:
        return float(self.printed[f"step{step}_time_us"])

    def speedup(self, step: int) -> float:
        return float(self.printed[f"step{step}_speedup"])


@cache
def settings() -> tuple[Setting, ...]:
    """Table 2's rows and its early baselines, by scale."""
    rows = [*published.rows("table2_acceleration"), *published.rows("table2_early_baselines")]
    found = [Setting(row["setting"], scale_of(row["setting"]), row) for row in rows]
    return tuple(sorted(found, key=lambda setting: list(published.SCALES).index(setting.scale)))


def densities(experiment: Experiment) -> dict[str, list[float]]:
    """For each scale that is timed, the paper's densities and the config's others, descending."""
    if experiment.operators is None:
        return {}
    found: dict[str, list[float]] = {}
    for scale in experiment.operators.shapes:
        papers = {setting.density for setting in settings() if setting.scale == scale and not setting.is_dense}
        others = {d for d in experiment.operators.densities if all(abs(d - paper) > 0.005 for paper in papers)}
        found[scale] = sorted(papers | others, reverse=True)
    return found


def trained(experiment: Experiment) -> dict[str, str]:
    """Rows of Table 2 that a run stands for -> ``run@activation``, whose own patterns are timed."""
    found = {}
    for setting in settings():
        if setting.name in experiment.rows:
            run, activation = experiment.pair(experiment.rows[setting.name])
            found[setting.name] = f"{run}@{activation}"
    return found


# ---------------------------------------------------------------------------- the measurements


@dataclass(frozen=True)
class Spread:
    median: float
    lower: float  # quartiles
    upper: float

    @classmethod
    def read(cls, raw: dict[str, float]) -> Spread:
        return cls(raw["median"], raw["lower_quartile"], raw["upper_quartile"])


@dataclass(frozen=True)
class Case:
    """One shape at one density; an arm is a way to do a step, or to read its bytes."""

    hidden_size: int
    intermediate_size: int
    density: float
    raw: dict[str, Any]

    def microseconds(self, arm: str, protocol: str = "cold") -> Spread:
        return Spread.read(self.raw[protocol][arm]["microseconds"])

    def speedup(self, arm: str, over: str) -> Spread:
        """How many times faster ``arm`` is, round by round; cold."""
        if arm == over:
            return Spread(1.0, 1.0, 1.0)
        return Spread.read(self.raw["cold"][arm]["times_faster_than"][over])

    def share(self, arm: str, limit: str = "stream") -> Spread:
        """Bytes/s as a share of a limit's in the same rounds; cold."""
        return Spread.read(self.raw["cold"][arm][f"share_of_{limit}"])

    def measured(self, arm: str) -> bool:
        return arm in self.raw["cold"]

    def bandwidth(self, limit: str) -> float:
        """Median bytes/s of ``stream`` or ``rows``."""
        return 1e9 * float(self.raw["cold"][limit]["gigabytes_per_second"]["median"])


def machine(raw: dict[str, Any]) -> str:
    """What times were measured on, in words: a GPU's name, or the processor and its threads."""
    if raw["device"] != "cpu":
        return str(raw["device"])
    threads = f"{raw['threads']} thread{'s' if raw['threads'] > 1 else ''}"
    processor = raw.get("provenance", {}).get("processor", "")
    return f"CPU ({processor}; {threads})" if processor else f"CPU ({threads})"


class Timings:
    """The experiment's operator times."""

    def __init__(self, results: Results) -> None:
        self._file = results.operators_file
        raw = results.operators()
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
        """The cases with random patterns at a scale's shape, densest first.

        Raises:
            MissingResult: there is none.
        """
        found = [case for case in self._cases if case.raw.get("scale") == scale]
        if not found:
            raise MissingResult(f"{self._file}: no operator times of {scale}")
        return sorted(found, key=lambda case: case.density, reverse=True)

    def at(self, scale: str, density: float) -> Case:
        """The case nearest to a density that was asked for, which whole neurons round.

        Raises:
            MissingResult: none was measured there.
        """
        found = min(self.of_scale(scale), key=lambda case: abs(case.density - density))
        if abs(found.density - density) > 1 / found.intermediate_size:
            raise MissingResult(f"{self._file}: no operator times of {scale} at density {density:g}")
        return found

    def of_row(self, row: str) -> Case:
        """The case with a trained model's own patterns.

        Raises:
            MissingResult: there is none.
        """
        for case in self._cases:
            if case.raw.get("row") == row:
                return case
        raise MissingResult(f"{self._file}: no operator times of the row {row}")


def read(results: Results) -> Timings | None:
    """None where the experiment times no operators.

    Raises:
        MissingResult: it does, and its times do not exist.
    """
    return None if results.experiment.operators is None else Timings(results)


def missing(experiment: Experiment, scale: str) -> str | None:
    """Why a scale has no times, None where it has."""
    if experiment.operators is None:
        return "the experiment times no operators"
    if scale not in experiment.operators.shapes:
        return f"the experiment times no operators of the {scale} shape"
    return None


# ---------------------------------------------------------------------------------- the models


def step_bytes(hidden_size: int, intermediate_size: int, density: float) -> int:
    """What a step must move in bfloat16: the active neurons' weights and the vectors in and out."""
    active = round(density * intermediate_size)
    return 2 * (active * hidden_size + hidden_size + intermediate_size)


@dataclass(frozen=True)
class Line:
    """time = fixed + slope x density, in us; errors are standard errors, None for two points."""

    fixed: float
    slope: float
    fixed_error: float | None
    slope_error: float | None
    points: int

    def at(self, density: float) -> float:
        return self.fixed + self.slope * density


def line(densities: Sequence[float], microseconds: Sequence[float]) -> Line | None:
    """The least-squares line; None where the points do not determine one."""
    if len(set(densities)) < 2:
        return None
    slope, fixed = statistics.linear_regression(densities, microseconds)
    number, middle = len(densities), statistics.fmean(densities)
    if number < 3:
        return Line(fixed, slope, None, None, number)
    residuals = [t - fixed - slope * d for d, t in zip(densities, microseconds, strict=True)]
    deviation = math.sqrt(math.fsum(r * r for r in residuals) / (number - 2))
    width = math.fsum((d - middle) ** 2 for d in densities)
    fixed_error = deviation * math.sqrt(1 / number + middle**2 / width)
    return Line(fixed, slope, fixed_error, deviation / math.sqrt(width), number)


def published_line(scale: str, step: int) -> Line | None:
    """Over the paper's sparse rows of a scale."""
    rows = [setting for setting in settings() if setting.scale == scale and not setting.is_dense]
    return line([row.density for row in rows], [row.microseconds(step) for row in rows])


def densest_fitted() -> float:
    """The densest of the paper's sparse rows: a line of ours is fitted over the same range."""
    return max(setting.density for setting in settings() if not setting.is_dense)


def measured_line(cases: Sequence[Case], step: int, protocol: str) -> Line | None:
    """Over the cases of a scale that are no denser than the paper's."""
    fitted = [case for case in cases if case.density < densest_fitted() + 1 / case.intermediate_size]
    arm = f"sparse_{STEPS[step]}"
    return line([case.density for case in fitted], [case.microseconds(arm, protocol).median for case in fitted])
