"""The repository that the tests belong to."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Experiments that stand alone; the other files are laid over one of them, or hold corpora.
EXPERIMENTS = [
    path
    for path in (ROOT / "config.yaml", *sorted((ROOT / "workflow" / "experiments").glob("*.yaml")))
    if re.search("^experiment:", path.read_text(encoding="utf-8"), re.M)
]
