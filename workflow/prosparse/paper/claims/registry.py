"""The claims, judged in the paper's order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims.finding import Finding, Verdict
from prosparse.paper.registry import Registry
from prosparse.paper.results.reader import Results
from prosparse.published.claims import history, published_claims
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

_COUNTED = {
    Verdict.HOLDS: "hold",
    Verdict.FAILS: "do not",
    Verdict.UNDECIDED: "are undecided (the 95 % interval straddles the tolerance)",
    Verdict.UNTESTABLE: "cannot be tested",
}


@dataclass(frozen=True)
class Judgement:
    number: int
    statement: str
    where: str
    test: str
    tolerance: dict[str, float]
    verdict: Verdict
    evidence: str


def judge(results: Results) -> list[Judgement]:
    """Return the verdict on every claim."""
    verdicts = []
    for number, claim in published_claims().items():
        finding = CLAIMS.build(f"claim{number}", results)
        verdicts.append(Judgement(**asdict(claim), verdict=finding.verdict, evidence=finding.evidence))
    return verdicts


def to_markdown(verdicts: list[Judgement], experiment: Experiment) -> str:
    counts = ", ".join(f"{sum(v.verdict is each for v in verdicts)} {words}" for each, words in _COUNTED.items())
    lines = [
        "### Claims",
        "",
        f"Experiment `{experiment.experiment}`: {counts}.",
        "",
        _seeds(experiment),
        "",
        "| | Claim | Verdict | Evidence |",
        "|---:|---|---|---|",
    ]
    for verdict in verdicts:
        cells = (f"{verdict.statement} ({verdict.where})", f"**{verdict.verdict.value}**", verdict.evidence)
        lines.append(
            f"| {verdict.number} | "
            + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells)
            + " |"
        )
    lines += [
        "",
        "How each claim is tested:",
        "",
        history(),
        "",
        *(f"{verdict.number}. {verdict.test.strip()}" for verdict in verdicts),
    ]
    return "\n".join(lines) + "\n"


def _seeds(experiment: Experiment) -> str:
    """Describe what the intervals cover."""
    count = len(experiment.seeds)
    if count > 1:
        return f"Differences are paired by row and by seed; their intervals cover both ({count} seeds)."
    deviation = experiment.seed_deviation
    if deviation is None:
        return (
            "Differences are paired by row. One seed shows nothing about another, so what compares separately trained "
            "runs has no interval and is undecided."
        )
    return (
        "Differences are paired by row. One seed shows nothing about another, so the intervals of what compares "
        f"separately trained runs take the deviation over seeds measured elsewhere ({deviation.loss:g} nats/token, "
        f"{deviation.sparsity:g} points of sparsity)."
    )


def write(layout: Layout) -> list[Path]:
    """Write the verdicts as Markdown and JSON.

    Raises:
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    experiment, verdicts = layout.experiment, judge(Results(layout))
    markdown, data = layout.claims("md"), layout.claims("json")
    write_text(markdown, to_markdown(verdicts, experiment))
    write_json(
        data,
        {
            "experiment": experiment.experiment,
            "claims": [{**asdict(each), "verdict": each.verdict.value} for each in verdicts],
        },
    )
    return [markdown, data]
