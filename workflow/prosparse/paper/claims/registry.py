"""The claims, judged in the paper's order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims.finding import Finding
from prosparse.paper.registry import Registry
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.system.files import write_json, write_text

#: ``claim3`` judges claim 3 of ``published/data/claims.yaml``.
CLAIMS = Registry[Finding](
    "claim",
    __package__,
    (
        "claim1",
        "claim2",
        "claim3",
        "claim4",
        "claim5",
        "claim6",
        "claim7",
        "claim8",
        "claim9",
        "claim10",
    ),
)

HOLDS, FAILS, UNTESTABLE = "holds here", "does not hold here", "not testable at this scale"
_COUNTED = {HOLDS: "hold here", FAILS: "do not", UNTESTABLE: "cannot be tested at this scale"}


@dataclass(frozen=True)
class Verdict:
    number: int
    statement: str
    where: str
    test: str
    tolerance: dict[str, float]
    verdict: str
    evidence: str


def judge(results: Results) -> list[Verdict]:
    """Return the verdict on every claim."""
    verdicts = []
    for number, claim in published_claims().items():
        finding = CLAIMS.build(f"claim{number}", results)
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
