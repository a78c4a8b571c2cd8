"""Claim 4: FATReLU adds sparsity at no cost in quality; a larger threshold has a cost."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, all_hold, all_of, at_most, more_than
from prosparse.paper.claims.pairs import pair_of, rows_needs, sparser, sparsity_of
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
        gain = sparser(results, chosen, zero)
        loss, more = measure.worse(chosen, zero), measure.worse(largest, chosen)
        findings.append(
            Finding(
                all_hold(
                    [
                        more_than(gain, tolerance["gain"]),
                        at_most(loss, measure.tolerance),
                        more_than(more, measure.tolerance),
                    ]
                ),
                f"{scale}: `{chosen}` is {gain.show(2)} points sparser than `{zero}` (required: more than "
                f"{tolerance['gain']:g}) and {measure.show(loss)} (allowed: {measure.tolerance:g}); `{largest}` "
                f"({sparsity_of(results, largest).mean:.2f} %) is {measure.show(more)} than that (required: more than "
                f"{measure.tolerance:g}). {measure.explanation}",
            )
        )
    return all_of(findings, "No runs stand for thresholds 0, 0.01 and 0.03 of Table 9.")
