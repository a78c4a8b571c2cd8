"""Claim 10: fine-tuning needs a non-zero lambda, smaller than the last stage's."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Quantity, untestable
from prosparse.paper.claims.pairs import sparser, sparsity_of, written_out
from prosparse.paper.claims.quality import quality
from prosparse.paper.results.final_factor import final_factor, final_factor_needs
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims


def needs(experiment: Experiment) -> Needs:
    compared = experiment.supervised_finetuning
    runs = [run for _, run in compared or ()]
    return Needs.of_pairs(experiment, runs) | final_factor_needs(experiment, runs)


def build(results: Results) -> Finding:
    tolerance = published_claims()[10].tolerance
    experiment = results.experiment
    compared = experiment.supervised_finetuning
    if compared is None:
        return untestable("The experiment names no supervised fine-tuning runs.")
    names = (compared.without, compared.smaller, compared.same)
    pairs = without, smaller, same = tuple(written_out(experiment, run) for run in names)
    measure = quality(results, [smaller, without, same], tolerance)
    kept, worse = sparser(results, smaller, without), measure.worse(same, smaller)
    none, less, full = (f"{final_factor(results, name).mean:.4g}" for name in names)
    shares = [f"{sparsity_of(results, pair).mean:.2f}%" for pair in pairs]
    return Finding.of(
        [
            Quantity(f"Sparsity with λ = {less} minus that with λ = {none}", kept, "points").more_than(
                tolerance["sparsity"]
            ),
            measure.cost(f"{measure.drop.capitalize()} from λ = {less} to λ = {full}", worse).more_than(
                measure.tolerance
            ),
        ],
        f"Sparsity after SFT is {shares[0]} with λ = {none}, {shares[1]} with {less} and {shares[2]} with {full}. With "
        f"λ = {none}, the model is {measure.show(measure.worse(without, smaller))} than with {less}. "
        f"{measure.explanation}",
    )
