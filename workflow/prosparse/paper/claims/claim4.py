"""Claim 4: FATReLU adds sparsity at no cost in quality; a larger threshold has a cost."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Quantity, all_of
from prosparse.paper.claims.pairs import named, pair_of, rows_needs, sized, sparser, sparsity_of
from prosparse.paper.claims.quality import explained, quality
from prosparse.paper.results.labels import activation_label
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
    experiment, findings, measures = results.experiment, [], []
    for scale in ("7B", "13B"):
        zero, chosen, largest = (pair_of(experiment, f"{scale} {t}") for t in ("0", "0.01", "0.03"))
        if zero is None or chosen is None or largest is None:
            continue
        measure = quality(results, [zero, chosen, largest], tolerance)
        model, papers = sized(results, scale, chosen), _papers(scale)
        one, other = (activation_label(experiment.pair(pair)[1]) for pair in (chosen, largest))
        shares = [f"{sparsity_of(results, pair).mean:.2f}%" for pair in (zero, chosen, largest)]
        measures.append(measure)
        findings.append(
            Finding.of(
                [
                    Quantity(
                        f"{model}: sparsity gain from {one}", sparser(results, chosen, zero), "points", paper=papers[0]
                    ).more_than(tolerance["gain"]),
                    measure.cost(f"{model}: {measure.drop} from {one}", measure.worse(chosen, zero), papers[1]).at_most(
                        measure.tolerance
                    ),
                    measure.cost(
                        f"{model}: {measure.drop} from {one} to {other}", measure.worse(largest, chosen), papers[2]
                    ).more_than(measure.tolerance),
                ],
                f"{named(results, zero)} has {shares[0]} sparsity, {shares[1]} with {one}, and {shares[2]} with "
                f"{other}.",
            )
        )
    return explained(
        all_of(findings, "The experiment has no model with runs for the thresholds 0, 0.01 and 0.03 of Table 9."),
        measures,
    )


def _papers(scale: str) -> list[str]:
    """Return the paper's gain in sparsity, and its changes in performance by the chosen and the largest threshold."""
    table = published_table("table9_threshold_sweep")
    rows = {row["threshold"]: row for row in table if row["model"] == scale}
    gain, change = (
        float(rows["0.01"][key]) - float(rows["0"][key]) for key in ("average_sparsity", "average_performance")
    )
    more = float(rows["0.03"]["average_performance"]) - float(rows["0.01"]["average_performance"])
    return [f"{gain:.2f} points", f"{change:+.2f} points of performance", f"{more:+.2f} points of performance"]
