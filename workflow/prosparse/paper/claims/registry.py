"""The claims, judged in the paper's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosparse.experiment.layout import Layout
from prosparse.paper.claims.finding import Finding, Part, Verdict, untestable
from prosparse.paper.markdown import markdown_table
from prosparse.paper.registry import Registry
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.samples import keeps_sequences
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

#: Verdict -> how one claim with it is counted, and several.
_COUNTED = {
    Verdict.HOLDS: ("holds", "hold"),
    Verdict.FAILS: ("does not hold", "do not hold"),
    Verdict.UNDECIDED: ("is undecided", "are undecided"),
    Verdict.UNTESTABLE: ("cannot be tested", "cannot be tested"),
}
RULE = (
    "A claim holds if the 95% interval of each number lies on the required side of its limit. It does not hold if any "
    "interval lies entirely on the other side, and is undecided otherwise."
)


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
    """Return the verdict on every claim; one whose measurements do not exist is not testable."""
    verdicts = []
    for number, claim in published_claims().items():
        try:
            finding = CLAIMS.build(f"claim{number}", results)
        except MissingResult as error:
            missing = str(error).removeprefix(f"{results.layout.directory}/")
            finding = untestable(f"A measurement is missing: {missing}.")
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


def to_markdown(verdicts: list[Judgement], results: Results) -> str:
    lines = [
        "# Claims",
        "",
        f"{counted([each.verdict for each in verdicts])} {RULE}",
        "",
        intervals_words(results),
    ]
    lines += ["", *verdict_table(verdicts)]
    for verdict in verdicts:
        lines += ["", f"## {verdict.number}. {verdict.title}: {verdict.verdict.value}", ""]
        lines += [f"**Paper** ({verdict.where}). {verdict.statement}", ""]
        if verdict.parts:
            rows = [
                [part.quantity, part.paper or "–", part.ours, part.limit, part.verdict.value] for part in verdict.parts
            ]
            lines += [*markdown_table(["", "Paper", "Ours (95% interval)", "Required", ""], rows), ""]
        lines += [
            *(f"- {line}" for line in verdict.evidence.splitlines()),
            "",
            f"**Test.** {verdict.test.strip()}",
        ]
    lines += ["", "## When the tolerances were set", "", history()]
    return "\n".join(lines) + "\n"


def counted(verdicts: Sequence[Verdict]) -> str:
    """Say how many claims have which verdict: ``Of the paper's 10 claims, 9 hold and 1 does not hold.``"""
    numbers = {verdict: verdicts.count(verdict) for verdict in _COUNTED if verdict in verdicts}
    words = [f"{number} {_COUNTED[verdict][number > 1]}" for verdict, number in numbers.items()]
    listed = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    return f"Of the paper's {len(verdicts)} claims, {listed}."


def verdict_table(verdicts: list[Judgement]) -> list[str]:
    """Return one line per claim, with the number that decided it."""
    rows = []
    for verdict in verdicts:
        part = verdict.deciding
        numbers = [part.quantity, part.paper or "–", part.ours, part.limit] if part else ["–"] * 4
        rows.append([str(verdict.number), verdict.title, f"**{verdict.verdict.value}**", *numbers])
    return markdown_table(["", "Claim", "Verdict", "Decided by", "Paper", "Ours (95% interval)", "Required"], rows)


def intervals_words(results: Results) -> str:
    """Describe what the intervals cover."""
    if not keeps_sequences(results):
        return (
            "Held-out text was measured before the values of each sequence were kept, so what needs them has no "
            "interval and is undecided."
        )
    experiment = results.experiment
    count = len(experiment.seeds)
    if count > 1:
        return f"Differences are paired by row and by seed, and their intervals cover both ({count} seeds)."
    deviation = experiment.seed_deviation
    if deviation is None:
        return (
            "Differences are paired by row. A single seed cannot show how much training varies, so comparisons of "
            "separately trained runs have no interval and are undecided."
        )
    return (
        "Differences are paired by row. A single seed cannot show how much training varies, so the intervals of "
        "comparisons between separately trained runs include a standard deviation over seeds that was measured "
        f"separately, the config's `seed_deviation`: {deviation.loss:g} nats/token and {deviation.sparsity:g} points "
        "of sparsity."
    )


def _as_json(judgement: Judgement) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Verdict) else value

    return asdict(judgement, dict_factory=lambda items: {key: plain(value) for key, value in items})


def write(layout: Layout) -> list[Path]:
    """Write the verdicts as Markdown and JSON."""
    results = Results(layout)
    verdicts = judge(results)
    markdown, data = layout.claims("md"), layout.claims("json")
    write_text(markdown, to_markdown(verdicts, results))
    write_json(
        data,
        {
            "experiment": layout.experiment.experiment,
            "claims": [_as_json(each) for each in verdicts],
        },
    )
    return [markdown, data]
