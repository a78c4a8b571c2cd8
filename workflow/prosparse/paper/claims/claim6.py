"""Claim 6: low layers are denser, and FATReLU lifts mainly those."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, all_of
from prosparse.paper.claims.pairs import mean, pair_of, rows_needs
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.published.tables import SCALES


def needs(experiment: Experiment) -> Needs:
    keys = [key for _, plain, final in SCALES.values() for key in (plain, final)]
    return Needs(sparsity=rows_needs(experiment, keys).sparsity)


def build(results: Results) -> Finding:
    tolerance = published_claims()[6].tolerance
    experiment, findings = results.experiment, []
    for scale, (_, plain_row, final_row) in SCALES.items():
        plain, final = pair_of(experiment, plain_row), pair_of(experiment, final_row)
        if plain is None or final is None:
            continue
        before = [value.mean for value in results.sparsity(*experiment.pair(plain)).layers]
        after = [value.mean for value in results.sparsity(*experiment.pair(final)).layers]
        if len(before) < tolerance["layers"]:
            findings.append(Finding(None, f"{scale}: {len(before)} layers are too few to compare low and high ones."))
            continue
        half = len(before) // 2
        low, high = mean(before[:half]), mean(before[-half:])
        lift_low, lift_high = mean(after[:half]) - low, mean(after[-half:]) - high
        findings.append(
            Finding(
                high - low > tolerance["sparsity"] and lift_low > max(lift_high, 0.0),
                f"{scale}: without shifting, the lower half of the {len(before)} layers has {low:.2f} % sparsity and "
                f"the upper half {high:.2f} %; shifting changes them by {lift_low:+.2f} and {lift_high:+.2f} points.",
            )
        )
    return all_of(findings, "No runs stand for a ProSparse row both with and without threshold shifting.")
