"""The committed copy of an experiment's results: what a reader needs, without weights, tokens or logs."""

from __future__ import annotations

import shutil
from pathlib import Path

PUBLISHED_FILES = (
    "README.md",
    "config.json",
    "claims.*",
    "acceleration.md",
    "tables/*",
    "figures/*",
    "release/*/README.md",
    "measurements/**/*.json",
    "checkpoints/**/ledger.csv",
    "checkpoints/**/provenance.json",
    "data/documents/*/*.json",
    "timings/**/*.tsv",
)


def publish(directory: Path) -> Path:
    """Replace ``results/published/{experiment}`` with the current results and return that directory."""
    target = directory.parent / "published" / directory.name
    fresh = target.with_name(target.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    for pattern in PUBLISHED_FILES:
        for path in sorted(directory.glob(pattern)):
            if "resume" in path.parts:
                continue
            copy = fresh / path.relative_to(directory)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target
