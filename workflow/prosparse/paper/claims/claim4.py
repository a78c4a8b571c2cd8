"""Claim 4: FATReLU adds sparsity at no cost in quality; a larger threshold has a cost."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Quantity, all_of
from prosparse.paper.claims.pairs import named, pair_of, rows_needs, sparser, sparsity_of
from prosparse.paper.claims.quality import quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.published.tables import published_table


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
        papers = _papers(scale)
        findings.append(
            Finding.of(
                [
                    Quantity(f"Sparser by the threshold, {scale}", gain, "points", paper=papers[0]).more_than(
                        tolerance["gain"]
                    ),
                    measure.cost(f"Worse by the threshold, {scale}", loss, papers[1]).at_most(measure.tolerance),
                    measure.cost(f"Worse by the largest threshold, {scale}", more, papers[2]).more_than(
                        measure.tolerance
                    ),
                ],
                f"{scale}: {named(results, chosen)} is {gain.show(2)} points sparser than {named(results, zero)} "
                f"(required: more than {tolerance['gain']:g}) and {measure.show(loss)} (allowed: "
                f"{measure.tolerance:g}); {named(results, largest)} ({sparsity_of(results, largest).mean:.2f} %) is "
                f"{measure.show(more)} than that (required: more than "
                f"{measure.tolerance:g}). {measure.explanation}",
            )
        )
    return all_of(findings, "No runs stand for thresholds 0, 0.01 and 0.03 of Table 9.")


def _papers(scale: str) -> list[str]:
    """Return the paper's gain in sparsity, and its changes in performance by the chosen and the largest threshold."""
    table = published_table("table9_threshold_sweep")
    rows = {row["threshold"]: row for row in table if row["model"] == scale}
    gain, change = (
        float(rows["0.01"][key]) - float(rows["0"][key]) for key in ("average_sparsity", "average_performance")
    )
    more = float(rows["0.03"]["average_performance"]) - float(rows["0.01"]["average_performance"])
    return [f"{gain:.2f} points", f"{change:+.2f} points of performance", f"{more:+.2f} points of performance"]
