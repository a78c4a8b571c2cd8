"""The outcome of a test of a claim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The outcome of one test: True, False, or None if undecided; and the evidence."""

    holds: bool | None
    evidence: str


def all_of(findings: list[Finding], otherwise: str) -> Finding:
    """Combine findings: true if every decided finding is, undecided if none is decided."""
    if not findings:
        return Finding(None, otherwise)
    decided = [finding.holds for finding in findings if finding.holds is not None]
    return Finding(all(decided) if decided else None, "\n".join(finding.evidence for finding in findings))
