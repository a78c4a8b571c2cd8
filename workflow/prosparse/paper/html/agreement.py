"""Whether this run agrees with the published one"""

from __future__ import annotations

from prosparse.experiment.layout import Layout
from prosparse.paper.compare import page as compare
from prosparse.paper.compare.committed import committed
from prosparse.system.errors import ConfigError


def agreement(layout: Layout) -> str:
    """Say whether the numbers agree with the published copy of the same config; empty if there is none."""
    try:
        other = committed(layout)
    except ConfigError:
        return ""
    compared = compare.make(layout, other)
    return f"{compared.verdict()} of the published run; {compared.claims_verdict()}."
