"""Claim 1: sparsity rises only while lambda > 0."""

from __future__ import annotations

from itertools import pairwise

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding
from prosparse.paper.claims.pairs import pair_of
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims


def needs(experiment: Experiment) -> Needs:
    pairs = [pair_of(experiment, key) for key in ("Vanilla ReLU-7B", "ProSparse-7B")]
    if not all(pairs):
        return Needs()
    return Needs.of_chains(experiment, [experiment.pair(pair)[0] for pair in pairs if pair])


def build(results: Results) -> Finding:
    tolerance = published_claims()[1].tolerance
    experiment = results.experiment
    vanilla, progressive = pair_of(experiment, "Vanilla ReLU-7B"), pair_of(experiment, "ProSparse-7B")
    if vanilla is None or progressive is None:
        return Finding(None, "No run stands for both Vanilla ReLU-7B and ProSparse-7B.")
    allowed = tolerance["sparsity"]
    flat = results.ledger(experiment.pair(vanilla)[0])
    rising = results.ledger(experiment.pair(progressive)[0])
    if len(flat) < 2 or len(rising) < 2:
        return Finding(None, "The training ledgers have fewer than two rows.")
    start, end = flat[0].sparsity.mean, flat[-1].sparsity.mean
    rises = [(later.factor > 0, later.sparsity.mean - earlier.sparsity.mean) for earlier, later in pairwise(rising)]
    idle = sum(rise for regularized, rise in rises if not regularized)
    active = sum(rise for regularized, rise in rises if regularized)
    correlation = _correlation([float(regularized) for regularized, _ in rises], [rise for _, rise in rises])
    evidence = (
        f"Vanilla ReLU goes from {start:.2f} % (step {flat[0].step}) to {end:.2f} % (step {flat[-1].step}), "
        f"{end - start:+.2f} points; in the paper it stays near 66 %. ProSparse changes by {idle:+.2f} points while λ "
        f"= 0 and by {active:+.2f} while λ > 0"
        + (
            f" (correlation between λ > 0 and the change from one ledger row to the next: {correlation:+.2f})"
            if correlation is not None
            else ""
        )
        + f". Tolerance {allowed:g} points."
    )
    return Finding(abs(end - start) <= allowed and idle <= allowed < active, evidence)


def _correlation(x: list[float], y: list[float]) -> float | None:
    from statistics import StatisticsError, correlation

    try:
        return correlation(x, y)
    except StatisticsError:  # fewer than two points, or constant values
        return None
