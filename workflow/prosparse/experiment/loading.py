"""Turn a config, as read from YAML, into a validated experiment."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prosparse.experiment import scales
from prosparse.experiment.calibrated import with_probes
from prosparse.experiment.experiment import Experiment
from prosparse.system.errors import ConfigError
from prosparse.system.problems import describe

#: Sections allowed in the files that ``data.corpora`` names.
CORPORA_FILE = frozenset({"packages", "corpora", "mixtures"})

REPOSITORY = Path(__file__).parents[3]


def _corpora_file(name: Any) -> Path:
    """Find a file that ``data.corpora`` names: in the current directory, else in the repository."""
    if not isinstance(name, str):
        raise ConfigError(f"data.corpora: must name YAML files (got {name!r})")
    directories = (Path.cwd(), REPOSITORY)
    for directory in directories:
        if (path := directory / name).is_file():
            return path
    raise ConfigError(f"data.corpora: no file {name} in {' or '.join(str(directory) for directory in directories)}")


def _read_corpora(path: Path) -> dict[str, dict[str, Any]]:
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
    return held


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two levels deep: entries of ``above``'s mappings take precedence one by one, other values whole."""
    both = {key for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return {**below, **above, **{key: {**below[key], **above[key]} for key in both}}


def _located(origin: Any) -> Any:
    """Let ``workflow/bases/...`` name a committed base, or its tokenizer, from any directory."""
    name = origin.get("pretrained") if isinstance(origin, dict) else None
    if isinstance(name, str) and name.startswith("workflow/") and not Path(name).exists():
        return {**origin, "pretrained": str(REPOSITORY / name)}
    return origin


def _whole_run(run: Any, defaults: dict[str, Any]) -> Any:
    if not isinstance(run, dict):
        return run
    if isinstance(own := run.get("training", {}), dict):
        run = {**run, "training": {**defaults, **own}}
    return {**run, "init": _located(run["init"])} if "init" in run else run


def load(raw: dict[str, Any]) -> Experiment:
    """Validate a config as read from YAML.

    A top-level ``training`` section holds defaults that each run's own ``training`` overrides. A run with ``scales``
    stands for one run per scale of λ. The probes of a calibration become runs. ``data.corpora`` may
    name a YAML file of ``packages``, ``corpora`` and ``mixtures``, or several; entries of a later file override those
    of an earlier one, and the experiment's own ``packages`` and ``mixtures`` override both. Corpora files and committed
    bases lie in the current directory or else in the repository.

    Raises:
        ConfigError: names every offending key and the values it allows.
    """
    raw, origin = scales.expanded(dict(raw)), ""
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(named := data.get("corpora"), str | list):
        paths = [_corpora_file(name) for name in ([named] if isinstance(named, str) else named)]
        layers = [*map(_read_corpora, paths), {key: value for key, value in data.items() if key != "corpora"}]
        raw["data"] = reduce(_laid_over, layers)
        origin = f" (data.corpora: {', '.join(map(str, paths))})"
    if isinstance(data, dict) and isinstance(tokenizers := data.get("tokenizers"), dict):
        tokenizers = {name: _located(tokenizer) for name, tokenizer in tokenizers.items()}
        raw["data"] = {**raw["data"], "tokenizers": tokenizers}
    defaults = raw.pop("training", {})
    if not isinstance(defaults, dict):
        raise ConfigError(f"training: must be a mapping of defaults for every run (got {defaults!r})")
    runs = raw.get("runs")
    if isinstance(runs, dict):
        raw["runs"] = {name: _whole_run(run, defaults) for name, run in runs.items()}
    try:
        return with_probes(Experiment.model_validate(raw))
    except ValidationError as error:
        raise ConfigError(f"invalid config{origin}\n{describe(error, Experiment)}") from None
