"""Claim 3: progressive beats constant regularization at equal sparsity and tokens."""

from __future__ import annotations

from itertools import pairwise

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import lineage_tokens
from prosparse.paper.claims.finding import Finding, all_of
from prosparse.paper.claims.pairs import pair_of, rows_needs, sparsity_of
from prosparse.paper.claims.quality import quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.published.tables import published_table


def needs(experiment: Experiment) -> Needs:
    return rows_needs(
        experiment, [f"{row['scale']} {row['lambda']}" for row in published_table("table5_constant_factor")]
    )


def build(results: Results) -> Finding:
    tolerance = published_claims()[3].tolerance
    experiment, findings = results.experiment, []
    rows = published_table("table5_constant_factor")
    for scale in dict.fromkeys(row["scale"] for row in rows):
        progressive = pair_of(experiment, f"{scale} ProSparse")
        constants = [
            pair
            for row in rows
            if row["scale"] == scale and row["lambda"] != "ProSparse"
            if (pair := pair_of(experiment, f"{scale} {row['lambda']}")) is not None
        ]
        if progressive is not None and constants:
            findings.append(_frontier(results, scale, progressive, list(dict.fromkeys(constants)), tolerance))
    return all_of(findings, "No runs stand for both a ProSparse row and a constant row of Table 5.")


def _frontier(
    results: Results, scale: str, progressive: str, constants: list[str], tolerance: dict[str, float]
) -> Finding:
    """Compare the progressive run with the constant runs' frontier of quality over sparsity."""
    experiment = results.experiment
    measure = quality(results, [progressive, *constants], tolerance)
    at, cost = sparsity_of(results, progressive), measure.costs[progressive].mean
    points = sorted((sparsity_of(results, pair), measure.costs[pair].mean, pair) for pair in constants)
    words = [f"{scale}: `{progressive}` reaches {at:.2f} % sparsity."]
    peak = experiment.runs[experiment.pair(progressive)[0]].stages[-1].peak
    for pair in constants:
        if experiment.runs[experiment.pair(pair)[0]].stages[-1].peak == peak:
            words.append(
                f"At equal λ ({peak:g}) it is {measure.show(measure.worse(progressive, pair))} than `{pair}`, "
                f"which reaches {sparsity_of(results, pair):.2f} %."
            )
    budgets = {pair: lineage_tokens(experiment, experiment.pair(pair)[0]) for pair in (progressive, *constants)}
    uneven = [
        pair
        for pair in constants
        if abs(budgets[pair] - budgets[progressive]) > tolerance["tokens_share"] * budgets[progressive]
    ]
    holds: bool | None
    if uneven:
        holds = None
        words.append(
            f"Token budgets differ by more than {tolerance['tokens_share']:.0%} ({', '.join(uneven)}), "
            "so this is undecided."
        )
    elif points[0][0] <= at <= points[-1][0]:
        expected = points[0][1]
        for (left, left_cost, _), (right, right_cost, _) in pairwise(points):
            if left <= at <= right:
                share = (at - left) / (right - left) if right > left else 0.0
                expected = left_cost + share * (right_cost - left_cost)
                break
        difference = cost - expected
        holds = difference < -measure.tolerance
        words.append(
            f"At equal sparsity it is {measure.show(difference)} than the constant runs ({len(points)} runs, "
            f"interpolated; tolerance {measure.tolerance:g})."
        )
    else:
        span = f"{points[0][0]:.2f} to {points[-1][0]:.2f} %"
        nearest = points[-1] if at > points[-1][0] else points[0]
        difference = cost - nearest[1]
        comparison = f"the nearest constant run, `{nearest[2]}` ({nearest[0]:.2f} %), it is {measure.show(difference)}"
        if at > points[-1][0] and difference < -measure.tolerance:
            holds = True
            words.append(f"It is sparser than every constant run ({span}). Compared with {comparison}: it dominates.")
        elif at < points[0][0] and difference > -measure.tolerance:
            holds = False
            words.append(f"It is denser than every constant run ({span}). Compared with {comparison}: no gain.")
        else:
            holds = None
            words.append(
                f"It is outside the constant runs' range ({span}), so equal sparsity cannot be compared. Compared "
                f"with {comparison}."
            )
    return Finding(holds, " ".join([*words, measure.explanation]))
