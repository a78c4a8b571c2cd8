"""Claim 5: the last lambda sets the final sparsity."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding
from prosparse.paper.results.final_factor import final_points
from prosparse.paper.results.fit import fit
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims


def needs(experiment: Experiment) -> Needs:
    return Needs(sparsity=set(experiment.figures.final_factor))


def build(results: Results) -> Finding:
    tolerance = published_claims()[5].tolerance
    points = [point for point in final_points(results) if point["lambda"] > 0]
    distinct = len({point["lambda"] for point in points})
    if distinct < tolerance["points"]:
        return Finding(
            None, f"{distinct} distinct λ_S were measured; testing three parameters takes {tolerance['points']:g}."
        )
    try:
        fitted = fit([point["lambda"] for point in points], [point["sparsity"] for point in points])
    except ValueError as error:
        return Finding(None, f"No fit: {error}.")
    factors, sparsities = sorted(point["lambda"] for point in points), sorted(point["sparsity"] for point in points)
    return Finding(
        fitted.r_squared >= tolerance["r_squared"] and fitted.a < 0,
        f"Over {len(points)} points from λ_S = {factors[0]:g} to {factors[-1]:g}, sparsity {sparsities[0]:.2f} to "
        f"{sparsities[-1]:.2f} %: a = {fitted.a:.3g}, b = {fitted.b:.3g}, c = {fitted.c:.3g} (paper: -1.76, 0.30, "
        "3.49, under its own normalization), "
        f"R² = {fitted.r_squared:.3f} (required: {tolerance['r_squared']:g}), residual standard deviation "
        f"{fitted.residual_deviation or 0:.2f} points with three parameters."
        + (
            ""
            if fitted.identified
            else " The points do not determine the exponent, so a, b and c have no meaning individually."
        ),
    )
