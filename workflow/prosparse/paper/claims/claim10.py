"""Claim 10: fine-tuning needs a non-zero lambda, smaller than the last stage's."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding
from prosparse.paper.claims.pairs import sparsity_of
from prosparse.paper.claims.quality import quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims


def needs(experiment: Experiment) -> Needs:
    compared = experiment.supervised_finetuning
    return Needs() if compared is None else Needs.of_pairs(experiment, [run for _, run in compared])


def build(results: Results) -> Finding:
    tolerance = published_claims()[10].tolerance
    compared = results.experiment.supervised_finetuning
    if compared is None:
        return Finding(None, "The experiment names no supervised fine-tuning runs.")
    runs = results.experiment.runs
    without, smaller, same = (
        f"{run}@{runs[run].activation}" for run in (compared.without, compared.smaller, compared.same)
    )
    measure = quality(results, [smaller, without, same], tolerance)
    kept, lost = sparsity_of(results, smaller), sparsity_of(results, without)
    worse = measure.worse(same, smaller)
    factors = [runs[name].stages[-1].peak for name in (compared.without, compared.smaller, compared.same)]
    return Finding(
        kept - lost > tolerance["sparsity"] and worse.mean > measure.tolerance,
        f"Sparsity after SFT: {lost:.2f} % with λ = {factors[0]:g}, {kept:.2f} % with {factors[1]:g}, "
        f"{sparsity_of(results, same):.2f} % with {factors[2]:g}. With λ = {factors[2]:g} the model is "
        f"{measure.show(worse)} than with {factors[1]:g}; with {factors[0]:g} it is "
        f"{measure.show(measure.worse(without, smaller))} (tolerance {measure.tolerance:g}). "
        f"{measure.explanation}",
    )
