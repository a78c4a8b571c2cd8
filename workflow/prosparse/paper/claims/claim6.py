"""Claim 6: low layers are denser, and FATReLU lifts mainly those."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Quantity, all_of, untestable
from prosparse.paper.claims.pairs import pair_of, rows_needs, sized
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.statistics.estimate import mean_of_draws
from prosparse.published.claims import published_claims
from prosparse.published.tables import SCALES


def needs(experiment: Experiment) -> Needs:
    keys = [key for _, plain, final in SCALES.values() for key in (plain, final)]
    return Needs(sparsity=rows_needs(experiment, keys).sparsity)


def build(results: Results) -> Finding:
    tolerance = published_claims()[6].tolerance
    experiment, findings = results.experiment, []
    for scale, (_, plain_row, final_row) in SCALES.items():
        plain, final = pair_of(experiment, plain_row), pair_of(experiment, final_row)
        if plain is None or final is None:
            continue
        model = sized(results, scale, final)
        before, after = _halves(results, plain), _halves(results, final)
        layers = len(results.sparsity(*experiment.pair(plain)).layers)
        if layers < tolerance["layers"]:
            findings.append(untestable(f"{model}: {layers} layers are too few to compare low and high ones."))
            continue
        lifts = [
            (low_after - low, high_after - high)
            for (low, high), (low_after, high_after) in zip(before, after, strict=True)
        ]
        denser = mean_of_draws([high - low for low, high in before])
        lift_low = mean_of_draws([low for low, _ in lifts])
        lifted_more = mean_of_draws([low - max(high, 0.0) for low, high in lifts])
        findings.append(
            Finding.of(
                [
                    Quantity(f"{model}: sparsity, upper minus lower layers", denser, "points").more_than(
                        tolerance["sparsity"]
                    ),
                    Quantity(
                        f"{model}: sparsity gain from FATReLU, lower minus upper layers", lifted_more, "points"
                    ).more_than(0),
                ],
                f"{model}: with ReLU, the sparsity of the lower half of the {layers} layers is "
                f"{fmean(low for low, _ in before):.2f}%, that of the upper half "
                f"{fmean(high for _, high in before):.2f}%. FATReLU changes them by {lift_low.mean:+.2f} and "
                f"{fmean(high for _, high in lifts):+.2f} points. Intervals are over {len(before)} corpora.",
            )
        )
    return all_of(
        findings, "The experiment has no model with runs for its ProSparse rows with and without threshold shifting."
    )


def _halves(results: Results, pair: str) -> list[tuple[float, float]]:
    """Return the mean sparsity of the lower and upper half of the layers (percent), per corpus, averaged over seeds."""
    corpora = []
    entries = results.heldout(*results.experiment.pair(pair))
    for name in entries[0]["corpora"]:
        seeds = [entry["corpora"][name]["layer_sparsity"] for entry in entries]
        layers = [100 * fmean(shares) for shares in zip(*seeds, strict=True)]
        half = len(layers) // 2
        corpora.append((_mean(layers[:half]), _mean(layers[-half:])))
    return corpora


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else float("nan")
