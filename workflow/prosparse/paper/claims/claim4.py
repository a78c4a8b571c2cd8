"""Claim 4: FATReLU adds sparsity at no cost in quality."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, all_of
from prosparse.paper.claims.pairs import pair_of, rows_needs, sparsity_of
from prosparse.paper.claims.quality import quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims


def needs(experiment: Experiment) -> Needs:
    return rows_needs(
        experiment, [f"{scale} {threshold}" for scale in ("7B", "13B") for threshold in ("0", "0.01", "0.03")]
    )


def build(results: Results) -> Finding:
    tolerance = published_claims()[4].tolerance
    experiment, findings = results.experiment, []
    for scale in ("7B", "13B"):
        zero, chosen, largest = (pair_of(experiment, f"{scale} {t}") for t in ("0", "0.01", "0.03"))
        if zero is None or chosen is None or largest is None:
            continue
        measure = quality(results, [zero, chosen, largest], tolerance)
        gain = sparsity_of(results, chosen) - sparsity_of(results, zero)
        loss, more = measure.worse(chosen, zero), measure.worse(largest, chosen)
        findings.append(
            Finding(
                gain >= tolerance["gain"] and loss.mean <= measure.tolerance and more.mean > 0,
                f"{scale}: `{chosen}` gains {gain:+.2f} points of sparsity over `{zero}` and is {measure.show(loss)} "
                f"(tolerance {measure.tolerance:g}); `{largest}` ({sparsity_of(results, largest):.2f} %) is "
                f"{measure.show(more)} than that. {measure.explanation}",
            )
        )
    return all_of(findings, "No runs stand for thresholds 0, 0.01 and 0.03 of Table 9.")
