"""Turn a config, as read from YAML, into a validated experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.problems import describe
from prosparse.system.errors import ConfigError

#: Sections allowed in the file that ``data.corpora`` names.
CORPORA_FILE = frozenset({"packages", "corpora", "mixtures"})

REPOSITORY = Path(__file__).parents[3]


def _corpora_file(name: str) -> Path:
    """Find the file that ``data.corpora`` names: in the current directory, else in the repository."""
    directories = (Path.cwd(), REPOSITORY)
    for directory in directories:
        if (path := directory / name).is_file():
            return path
    raise ConfigError(f"data.corpora: no file {name} in {' or '.join(str(directory) for directory in directories)}")


def _laid_over_file(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Merge a corpora file into the experiment's own ``data``, whose entries take precedence one by one."""
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"data.corpora: {path} cannot be read as YAML: {error}") from None
    if (
        not isinstance(held, dict)
        or not held.keys() <= CORPORA_FILE
        or not all(isinstance(section, dict) for section in held.values())
    ):
        raise ConfigError(f"data.corpora: {path} may hold only mappings named {', '.join(sorted(CORPORA_FILE))}")
    own = {key: value for key, value in data.items() if key != "corpora"}
    entries = {key: {**held[key], **own[key]} for key in held.keys() & own.keys() if isinstance(own[key], dict)}
    return {**held, **own, **entries}


def load(raw: dict[str, Any]) -> Experiment:
    """Validate a config as read from YAML.

    A top-level ``training`` section holds defaults that each run's own ``training`` overrides. ``data.corpora`` may
    name a YAML file of ``packages``, ``corpora`` and ``mixtures``; the experiment's own ``packages`` and ``mixtures``
    override entries of that file.

    Raises:
        ConfigError: names every offending key and the values it allows.
    """
    raw, origin = dict(raw), ""
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("corpora"), str):
        path = _corpora_file(data["corpora"])
        raw["data"], origin = _laid_over_file(data, path), f" (data.corpora: {path})"
    defaults = raw.pop("training", {})
    if not isinstance(defaults, dict):
        raise ConfigError(f"training: a mapping of what every run's training shares is needed (got {defaults!r})")
    runs = raw.get("runs")
    if isinstance(runs, dict):
        raw["runs"] = {
            name: {**run, "training": {**defaults, **run.get("training", {})}}
            if isinstance(run, dict) and isinstance(run.get("training", {}), dict)
            else run
            for name, run in runs.items()
        }
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"invalid config{origin}\n{describe(error, Experiment)}") from None
