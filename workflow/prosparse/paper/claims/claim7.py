"""Claim 7: formatted data is sparser than plain text."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, all_of
from prosparse.paper.claims.pairs import mean, pair_of, rows_needs
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.published.tables import SCALES


def needs(experiment: Experiment) -> Needs:
    return Needs(sparsity=rows_needs(experiment, [final for _, _, final in SCALES.values()]).sparsity)


def build(results: Results) -> Finding:
    tolerance = published_claims()[7].tolerance
    experiment, findings = results.experiment, []
    for scale, (_, _, final_row) in SCALES.items():
        final = pair_of(experiment, final_row)
        if final is None:
            continue
        groups: dict[str, list[float]] = {"instruction": [], "code": [], "plain text": []}
        for measured in results.sparsity(*experiment.pair(final)).corpora:
            corpus = experiment.data.corpora[measured.corpus]
            kind = (
                "instruction"
                if corpus.kind == "instruction"
                else "code"
                if corpus.stands_for == "starcoder"
                else "plain text"
            )
            groups[kind].append(measured.sparsity.mean)
        formatted = groups["instruction"] + groups["code"]
        if not formatted or not groups["plain text"]:
            findings.append(Finding(None, f"{scale}: all corpora are of one kind."))
            continue
        each = ", ".join(f"{kind} {mean(values):.2f} % ({len(values)})" for kind, values in groups.items() if values)
        difference = mean(formatted) - mean(groups["plain text"])
        findings.append(
            Finding(
                difference > tolerance["sparsity"],
                f"{scale}: mean sparsity of `{final}` (number of corpora): {each}. Formatted data is "
                f"{abs(difference):.2f} points {'sparser' if difference > 0 else 'denser'}, "
                f"tolerance {tolerance['sparsity']:g}.",
            )
        )
    return all_of(findings, "No run stands for a ProSparse row.")
