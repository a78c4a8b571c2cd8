"""The repository that the tests belong to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
#: Whole experiments; the other files are merged over the default one, or hold corpora.
EXPERIMENTS = [
    path
    for path in (ROOT / "config.yaml", *sorted((ROOT / "workflow" / "experiments").glob("*.yaml")))
    if re.search("^  corpora:", path.read_text(encoding="utf-8"), re.M)
]
#: Every config file of an experiment, whole or merged over the default one.
CONFIGS = [
    ROOT / "config.yaml",
    *(
        path
        for path in sorted((ROOT / "workflow" / "experiments").glob("*.yaml"))
        if not path.stem.endswith("_corpora")
    ),
]


def shipped(path: Path) -> dict[str, Any]:
    """A config as Snakemake reads it: a file that does not say what to train on is merged over the default."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "corpora" in config.get("data", {}):
        return config
    return _merged(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")), config)


def _merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = config.keys() & changes.keys()
    nested = {key: _merged(config[key], changes[key]) for key in both if isinstance(changes[key], dict)}
    return {**config, **changes, **nested}
