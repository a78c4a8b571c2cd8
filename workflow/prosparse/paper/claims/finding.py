"""The outcome of a test of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from prosparse.paper.statistics.estimate import Estimate


class Verdict(Enum):
    """What a test says.

    ``UNDECIDED``: it was made, but its 95% interval straddles the tolerance. ``UNTESTABLE``: it could not be made.
    """

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"
    UNTESTABLE = "not testable"


@dataclass(frozen=True)
class Part:
    """One number of a test against its limit, in words; ``paper`` is the paper's own number, if it prints one."""

    quantity: str
    ours: str
    limit: str
    verdict: Verdict
    paper: str = ""


@dataclass(frozen=True)
class Quantity:
    """A measured number that a test holds against a limit."""

    name: str
    estimate: Estimate
    unit: str
    digits: int = 2
    paper: str = ""

    def at_most(self, limit: float) -> Part:
        return Part(self.name, self._ours(), f"at most {limit:g}", at_most(self.estimate, limit), self.paper)

    def more_than(self, limit: float) -> Part:
        return Part(self.name, self._ours(), f"more than {limit:g}", more_than(self.estimate, limit), self.paper)

    def _ours(self) -> str:
        number, _, interval = self.estimate.show(self.digits).partition(" ")
        space = "" if self.unit == "%" else " "
        return f"{number}{space}{self.unit} {interval.replace('95% interval ', '')}".strip()


@dataclass(frozen=True)
class Finding:
    """The outcome of one test, the numbers that decided it, and the evidence."""

    verdict: Verdict
    evidence: str
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Part], evidence: str) -> Finding:
        """Judge by parts that must all hold."""
        return cls(all_hold([part.verdict for part in parts]), evidence, tuple(parts))

    @property
    def deciding(self) -> Part | None:
        """The part that shows the verdict best: the first with the same verdict; None without parts."""
        return next((part for part in self.parts if part.verdict is self.verdict), next(iter(self.parts), None))


def untestable(why: str) -> Finding:
    return Finding(Verdict.UNTESTABLE, why)


def at_most(estimate: Estimate, limit: float) -> Verdict:
    """Decide whether a quantity is at most ``limit``: where its whole 95% interval is on one side."""
    if estimate.upper <= limit:
        return Verdict.HOLDS
    return Verdict.FAILS if estimate.lower > limit else Verdict.UNDECIDED


def more_than(estimate: Estimate, limit: float) -> Verdict:
    """Decide whether a quantity is more than ``limit``: where its whole 95% interval is on one side."""
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
        all_hold([finding.verdict for finding in findings]),
        "\n".join(finding.evidence for finding in findings),
        tuple(part for finding in findings for part in finding.parts),
    )
