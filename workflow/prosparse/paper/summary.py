"""What a run prints at its end: verdicts, the numbers to remember, and the files to open"""

from __future__ import annotations

from typing import Any

from prosparse.experiment.layout import Layout
from prosparse.paper.opening import claims, key_numbers
from prosparse.paper.results.reader import MissingResult, Results

WIDTH = 48


def summary(layout: Layout) -> str:
    """Return a dozen lines on the results that exist; without verdicts, only what to open."""
    try:
        lines = [_verdict(claim) for claim in claims(layout)]
        lines += [f"{each.ours} {each.title} (paper: {each.paper})" for each in key_numbers(Results(layout))]
    except MissingResult:
        lines = []
    opened = [layout.html(), layout.page()]
    return "\n".join([*lines, *(f"open {path}" for path in opened if path.exists())])


def _verdict(claim: dict[str, Any]) -> str:
    part = claim["deciding"]
    number = f"  {part['quantity']}: {part['ours']}, required {part['limit']}" if part else ""
    return f"{claim['number']:2} {claim['title']:{WIDTH}} {claim['verdict']:13}{number}"
