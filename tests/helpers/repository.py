"""The repository that the tests belong to."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Whole experiments; the other files are merged over the default one, or hold corpora.
EXPERIMENTS = [
    path
    for path in (ROOT / "config.yaml", *sorted((ROOT / "workflow" / "experiments").glob("*.yaml")))
    if re.search("^  corpora:", path.read_text(encoding="utf-8"), re.M)
]
