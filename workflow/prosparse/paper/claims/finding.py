"""The outcome of a test of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from prosparse.paper.statistics.estimate import Estimate


class Verdict(Enum):
    """What a test says.

    ``UNDECIDED``: it was made, but its 95 % interval straddles the tolerance. ``UNTESTABLE``: it could not be made.
    """

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    UNTESTABLE = "not testable"


@dataclass(frozen=True)
class Finding:
    """The outcome of one test, and the evidence."""

    verdict: Verdict
    evidence: str


def untestable(why: str) -> Finding:
    return Finding(Verdict.UNTESTABLE, why)


def at_most(estimate: Estimate, limit: float) -> Verdict:
    """Decide whether a quantity is at most ``limit``: where its whole 95 % interval is on one side."""
    if estimate.upper <= limit:
        return Verdict.HOLDS
    return Verdict.FAILS if estimate.lower > limit else Verdict.UNDECIDED


def more_than(estimate: Estimate, limit: float) -> Verdict:
    """Decide whether a quantity is more than ``limit``: where its whole 95 % interval is on one side."""
    if estimate.lower > limit:
        return Verdict.HOLDS
    return Verdict.FAILS if estimate.upper <= limit else Verdict.UNDECIDED


def all_hold(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine a claim's parts: one that fails decides, then one that is undecided; untestable ones do not count."""
    for verdict in (Verdict.FAILS, Verdict.UNDECIDED, Verdict.HOLDS):
        if verdict in verdicts:
            return verdict
    return Verdict.UNTESTABLE


def all_of(findings: Sequence[Finding], otherwise: str) -> Finding:
    """Combine findings; ``otherwise`` says why there are none."""
    if not findings:
        return untestable(otherwise)
    return Finding(
        all_hold([finding.verdict for finding in findings]), "\n".join(finding.evidence for finding in findings)
    )
