"""The repository that the tests belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

ROOT = Path(__file__).parents[2]
#: Every config file of an experiment, whole or merged over the default one.
CONFIGS = [
    ROOT / "config.yaml",
    *(
        path
        for path in sorted((ROOT / "workflow" / "experiments").glob("*.yaml"))
        if not path.stem.endswith("_corpora")
    ),
]


def _is_whole(config: dict[str, Any]) -> bool:
    """Whether it says what to train on; Snakemake merges any other over the default config."""
    return "corpora" in config.get("data", {})


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


EXPERIMENTS = [path for path in CONFIGS if _is_whole(_read(path))]


def shipped(path: Path) -> dict[str, Any]:
    """A config as Snakemake reads it."""
    own = _read(path)
    if _is_whole(own):
        return own
    config = _read(ROOT / "config.yaml")
    update_config(config, own)
    return config
