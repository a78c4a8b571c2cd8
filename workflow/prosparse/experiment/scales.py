"""Runs written once for several scales of λ: an experiment's grid in few lines."""

from __future__ import annotations

from typing import Any

from prosparse.system.errors import ConfigError

#: Sections whose lists name runs or pairs.
NAMING = ("search", "benchmarked", "release", "figures", "schedules")


def expanded(raw: dict[str, Any]) -> dict[str, Any]:
    """Replace each run with ``scales: [0.5, 2]`` by ``NAME-x0.5`` and ``NAME-x2``, whose peaks are multiplied.

    A list of pairs that names NAME or NAME@activation names all of them, in the order of the scales.

    Raises:
        ConfigError: names the run, and what its scales may be.
    """
    if not isinstance(runs := raw.get("runs"), dict):
        return raw
    grids = {name: _grid(name, run) for name, run in runs.items() if isinstance(run, dict) and "scales" in run}
    for name, grid in grids.items():
        if taken := sorted(grid.keys() & runs.keys()):
            raise ConfigError(f"runs.{name}.scales: {', '.join(taken)} is also a run of its own; rename one")
    written = {key: value for name, run in runs.items() for key, value in grids.get(name, {name: run}).items()}
    names = {name: list(grid) for name, grid in grids.items()}
    return {**raw, "runs": written, **{key: _named(raw[key], names) for key in NAMING if key in raw}}


def _grid(name: str, run: dict[str, Any]) -> dict[str, Any]:
    """Return a run's scaled copies by name."""
    scales, stages = run["scales"], run.get("stages")
    if (
        not isinstance(scales, list)
        or not scales
        or not all(type(scale) in (int, float) and 0 < scale < float("inf") for scale in scales)
        or len(set(scales)) < len(scales)
    ):
        raise ConfigError(f"runs.{name}.scales: must list distinct numbers above 0 (got {scales!r})")
    if not isinstance(stages, list) or not any(_peak(stage) for stage in stages):
        raise ConfigError(f"runs.{name}.scales: no stage of the run has a peak to multiply")
    rest = {key: value for key, value in run.items() if key != "scales"}
    return {f"{name}-x{scale:g}": {**rest, "stages": [_scaled(stage, scale) for stage in stages]} for scale in scales}


def _peak(stage: Any) -> float:
    peak = stage.get("peak") if isinstance(stage, dict) else None
    return peak if isinstance(peak, int | float) else 0


def _scaled(stage: Any, scale: float) -> Any:
    # ten digits, so that 0.1 times 3 is 0.3
    return {**stage, "peak": float(f"{_peak(stage) * scale:.10g}")} if _peak(stage) else stage


def _named(value: Any, names: dict[str, list[str]]) -> Any:
    """Return a section whose lists hold the scaled runs in place of the run that stands for them."""
    if isinstance(value, dict):
        return {key: _named(each, names) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    found: list[Any] = []
    for each in value:
        run, at, activation = each.partition("@") if isinstance(each, str) else ("", "", "")
        found += [f"{name}{at}{activation}" for name in names[run]] if run in names else [_named(each, names)]
    return found
