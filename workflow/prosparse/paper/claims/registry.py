"""The claims, judged in the paper's order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims.finding import Finding, Part, Verdict
from prosparse.paper.markdown import markdown_table
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
    title: str
    statement: str
    where: str
    test: str
    tolerance: dict[str, float]
    verdict: Verdict
    evidence: str
    parts: tuple[Part, ...]
    deciding: Part | None  # the part to show first


def judge(results: Results) -> list[Judgement]:
    """Return the verdict on every claim."""
    verdicts = []
    for number, claim in published_claims().items():
        finding = CLAIMS.build(f"claim{number}", results)
        verdicts.append(
            Judgement(
                **asdict(claim),
                verdict=finding.verdict,
                evidence=finding.evidence,
                parts=finding.parts,
                deciding=finding.deciding,
            )
        )
    return verdicts


def to_markdown(verdicts: list[Judgement], experiment: Experiment) -> str:
    lines = [
        "### Claims",
        "",
        f"Experiment `{experiment.experiment}`: {counted(verdicts)}.",
        "",
        seeds_words(experiment),
    ]
    lines += ["", *verdict_table(verdicts)]
    for verdict in verdicts:
        lines += ["", f"#### {verdict.number}. {verdict.title}: {verdict.verdict.value}", ""]
        lines += [f"The paper ({verdict.where}): {verdict.statement}", ""]
        if verdict.parts:
            rows = [
                [part.quantity, part.paper or "–", part.ours, part.limit, part.verdict.value] for part in verdict.parts
            ]
            lines += [*markdown_table(["", "Paper", "Ours (95 % interval)", "Required", ""], rows), ""]
        lines += [
            *(f"- {line}" for line in verdict.evidence.splitlines()),
            "",
            f"How it is tested: {verdict.test.strip()}",
        ]
    lines += ["", "#### When the tolerances were set", "", history()]
    return "\n".join(lines) + "\n"


def counted(verdicts: list[Judgement]) -> str:
    """Say how many claims have which verdict."""
    return ", ".join(f"{sum(v.verdict is each for v in verdicts)} {words}" for each, words in _COUNTED.items())


def verdict_table(verdicts: list[Judgement]) -> list[str]:
    """Return one line per claim, with the number that decided it."""
    rows = []
    for verdict in verdicts:
        part = verdict.deciding
        numbers = [part.quantity, part.paper or "–", part.ours, part.limit] if part else ["–"] * 4
        rows.append([str(verdict.number), verdict.title, f"**{verdict.verdict.value}**", *numbers])
    return markdown_table(["", "Claim", "Verdict", "Decided by", "Paper", "Ours (95 % interval)", "Required"], rows)


def seeds_words(experiment: Experiment) -> str:
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


def _as_json(judgement: Judgement) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Verdict) else value

    return asdict(judgement, dict_factory=lambda items: {key: plain(value) for key, value in items})


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
            "claims": [_as_json(each) for each in verdicts],
        },
    )
    return [markdown, data]
