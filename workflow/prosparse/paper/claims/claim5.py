"""Claim 5: the last lambda sets the final sparsity."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Part, Verdict, all_hold, at_most, untestable
from prosparse.paper.claims.pairs import sparser, written_out
from prosparse.paper.results.final_factor import final_points
from prosparse.paper.results.fit import fit, left_out_errors
from prosparse.paper.results.labels import run_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.statistics.estimate import Estimate
from prosparse.published.claims import published_claims


def needs(experiment: Experiment) -> Needs:
    return Needs(sparsity=set(experiment.figures.final_factor))


def build(results: Results) -> Finding:
    points = [point for point in final_points(results) if point["lambda"] > 0]
    form, histories = _form(points), _histories(results, points)
    if form.verdict is Verdict.UNTESTABLE and histories.verdict is not Verdict.FAILS:
        return form
    parts = (*form.parts, *histories.parts)
    return Finding(all_hold([form.verdict, histories.verdict]), f"{form.evidence} {histories.evidence}", parts)


def _form(points: list[dict[str, Any]]) -> Finding:
    """Judge whether sparsity follows the paper's curve."""
    tolerance = published_claims()[5].tolerance
    factors, sparsities = [point["lambda"] for point in points], [point["sparsity"] for point in points]
    distinct = len(set(factors))
    if distinct < tolerance["points"]:
        return untestable(
            f"{distinct} distinct λ_S were measured; a fit of three parameters needs {tolerance['points']:g}."
        )
    try:
        fitted = fit(factors, sparsities)
        three, two = left_out_errors(factors, sparsities)
    except ValueError as error:
        return untestable(f"No fit: {error}.")
    explains = fitted.r_squared >= tolerance["r_squared"] and fitted.a < 0
    predicts = three <= tolerance["prediction"] and three < two
    verdict = Verdict.HOLDS if explains and predicts else Verdict.FAILS
    limits = f"at least {tolerance['r_squared']:g}", f"at most {tolerance['prediction']:g}, and less than {two:.2f}"
    parts = (
        Part("R² of the fit", f"{fitted.r_squared:.3f}", limits[0], Verdict.HOLDS if explains else Verdict.FAILS),
        Part(
            "Prediction error at a λ_S left out of the fit",
            f"{three:.2f} points",
            limits[1],
            Verdict.HOLDS if predicts else Verdict.FAILS,
        ),
    )
    words = (
        f"The fit to {len(points)} points, from λ_S = {min(factors):g} to {max(factors):g} and from "
        f"{min(sparsities):.2f} to {max(sparsities):.2f}% sparsity, gives a = {fitted.a:.3g}, b = {fitted.b:.3g} and "
        f"c = {fitted.c:.3g} (paper, with its own normalization of λ: -1.76, 0.30 and 3.49). A two-parameter power law "
        f"predicts a λ_S left out of its fit with an error of {two:.2f} points."
    )
    if verdict is Verdict.HOLDS and not fitted.identified:
        verdict = Verdict.UNDECIDED
    if not fitted.identified:
        words += " The points do not determine the exponent, so a, b and c have no meaning individually."
    return Finding(verdict, words, parts)


def _histories(results: Results, points: list[dict[str, Any]]) -> Finding:
    """Judge whether runs that reach one lambda_S from different checkpoints end at one sparsity."""
    allowed, experiment = published_claims()[5].tolerance["histories"], results.experiment
    parts, words = [], []
    for one, other in combinations(points, 2):
        if one["lambda"] == other["lambda"]:
            pairs = [written_out(experiment, point["run"]) for point in (one, other)]
            difference = sparser(results, *pairs)
            parts.append(
                Part(
                    f"Sparsity difference between two checkpoints continued with λ_S = {one['lambda']:g}",
                    f"{difference.show(2)} points".replace("95% interval ", ""),
                    f"at most {allowed:g} in either direction",
                    _within(difference, allowed),
                )
            )
            words.append(
                f"λ_S = {one['lambda']:g} was reached from two checkpoints: *{run_label(experiment, one['run'])}* and "
                f"*{run_label(experiment, other['run'])}*."
            )
    if not parts:
        return Finding(Verdict.UNDECIDED, "No two different checkpoints were continued with the same λ_S.")
    return Finding.of(parts, " ".join(words))


def _within(difference: Estimate, allowed: float) -> Verdict:
    """Decide whether a difference is at most ``allowed`` in size."""
    return all_hold([at_most(difference, allowed), at_most(-difference, allowed)])
