"""Claim 10: fine-tuning needs a non-zero lambda, smaller than the last stage's."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Quantity, untestable
from prosparse.paper.claims.pairs import sparser, sparsity_of, written_out
from prosparse.paper.claims.quality import quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims


def needs(experiment: Experiment) -> Needs:
    compared = experiment.supervised_finetuning
    return Needs() if compared is None else Needs.of_pairs(experiment, [run for _, run in compared])


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
    none, less, full = (f"{experiment.runs[name].stages[-1].peak:g}" for name in names)
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
