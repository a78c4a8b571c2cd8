"""The claims, judged in the paper's order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import reduce
from importlib import import_module
from operator import or_
from pathlib import Path
from typing import Protocol

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims.finding import Finding
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.system.files import write_json, write_text

#: Claim number in ``published/data/claims.yaml`` -> the module of this package that judges it.
CLAIMS = {
    1: "claim1",
    2: "claim2",
    3: "claim3",
    4: "claim4",
    5: "claim5",
    6: "claim6",
    7: "claim7",
    8: "claim8",
    9: "claim9",
    10: "claim10",
}

HOLDS, FAILS, UNTESTABLE = "holds here", "does not hold here", "not testable at this scale"
_COUNTED = {HOLDS: "hold here", FAILS: "do not", UNTESTABLE: "cannot be tested at this scale"}


class ClaimModule(Protocol):
    """What each module of this package provides."""

    def needs(self, experiment: Experiment) -> Needs:
        """Return the measurements that the claim needs."""

    def build(self, results: Results) -> Finding:
        """Test the claim."""


@dataclass(frozen=True)
class Verdict:
    number: int
    statement: str
    where: str
    test: str
    tolerance: dict[str, float]
    verdict: str
    evidence: str


def module(number: int) -> ClaimModule:
    return import_module(f"prosparse.paper.claims.{CLAIMS[number]}")  # type: ignore[return-value]


def needs(experiment: Experiment) -> Needs:
    """Return the measurements that the claims need."""
    return reduce(or_, (module(number).needs(experiment) for number in CLAIMS))


def judge(results: Results) -> list[Verdict]:
    """Return the verdict on every claim."""
    verdicts = []
    for number, claim in published_claims().items():
        finding = module(number).build(results)
        verdict = UNTESTABLE if finding.holds is None else HOLDS if finding.holds else FAILS
        verdicts.append(Verdict(**asdict(claim), verdict=verdict, evidence=finding.evidence))
    return verdicts


def to_markdown(verdicts: list[Verdict], experiment: Experiment) -> str:
    counts = ", ".join(f"{sum(v.verdict == kind for v in verdicts)} {words}" for kind, words in _COUNTED.items())
    lines = [
        "### Claims",
        "",
        f"Experiment `{experiment.experiment}`: {counts}. Tolerances were set before we saw our results.",
        "",
        "| | Claim | Verdict | Evidence |",
        "|---:|---|---|---|",
    ]
    for verdict in verdicts:
        cells = (f"{verdict.statement} ({verdict.where})", f"**{verdict.verdict}**", verdict.evidence)
        lines.append(
            f"| {verdict.number} | "
            + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells)
            + " |"
        )
    lines += [
        "",
        "How each claim is tested:",
        "",
        *(f"{verdict.number}. {verdict.test.strip()}" for verdict in verdicts),
    ]
    return "\n".join(lines) + "\n"


def write(layout: Layout) -> list[Path]:
    """Write the verdicts as Markdown and JSON.

    Raises:
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    experiment, verdicts = layout.experiment, judge(Results(layout))
    markdown, data = layout.claims("md"), layout.claims("json")
    write_text(markdown, to_markdown(verdicts, experiment))
    write_json(data, {"experiment": experiment.experiment, "claims": [asdict(verdict) for verdict in verdicts]})
    return [markdown, data]
