"""The committed copy of an experiment's results, without weights, tokens or logs."""

from __future__ import annotations

import shutil
from pathlib import Path

from prosparse.experiment.layout import PUBLISHED, Layout
from prosparse.paper.html import document


def publish(layout: Layout) -> Path:
    """Replace the experiment's committed copy with its current results and return its directory."""
    target = layout.published()
    fresh = target.with_name(target.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    for pattern in PUBLISHED:
        for path in sorted(layout.directory.glob(pattern)):
            if "resume" in path.parts:
                continue
            copy = fresh / layout.relative(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    copied = Layout(layout.experiment, target)
    if copied.html().exists():
        document.write(copied)  # without the comparison with what it replaces, and with links to what was copied
    return target
