"""The outcome of a test of a claim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One test's outcome: True, False, or None where it cannot be decided; and why."""

    holds: bool | None
    evidence: str


def all_of(findings: list[Finding], otherwise: str) -> Finding:
    """Holds if every decided finding does; undecided if none is."""
    if not findings:
        return Finding(None, otherwise)
    decided = [finding.holds for finding in findings if finding.holds is not None]
    return Finding(all(decided) if decided else None, "\n".join(finding.evidence for finding in findings))
