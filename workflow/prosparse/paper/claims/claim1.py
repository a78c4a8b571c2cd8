"""Claim 1: sparsity rises only while lambda > 0."""

from __future__ import annotations

from itertools import pairwise

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.training import Stage
from prosparse.method.schedule import factor, stage_at
from prosparse.paper.claims.finding import Finding, Quantity, untestable
from prosparse.paper.claims.pairs import pair_of, sized
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.samples import sample_of
from prosparse.paper.statistics.sample import Sample
from prosparse.published.claims import published_claims

ROWS = ("Vanilla ReLU-7B", "ProSparse-7B")


def needs(experiment: Experiment) -> Needs:
    pairs = [pair_of(experiment, key) for key in ROWS]
    if not all(pairs):
        return Needs()
    return Needs(stage_sparsity={experiment.pair(pair)[0] for pair in pairs if pair})


def build(results: Results) -> Finding:
    experiment, allowed = results.experiment, published_claims()[1].tolerance["sparsity"]
    vanilla, progressive = (pair_of(experiment, key) for key in ROWS)
    if vanilla is None or progressive is None:
        return untestable("No run stands for both Vanilla ReLU-7B and ProSparse-7B.")
    run = experiment.pair(progressive)[0]
    flat, rising = _over_steps(results, experiment.pair(vanilla)[0]), _over_steps(results, run)
    shared = sorted(flat.keys() & rising.keys())
    intervals = list(pairwise(shared))
    stages = experiment.runs[run].stages
    regularized = [(a, b) for a, b in intervals if any(_regularized(stages, step) for step in range(a + 1, b + 1))]
    if not regularized:
        return untestable("The two runs share no checkpoints before and after steps with λ > 0.")
    steps = sum(b - a for a, b in regularized)
    gain, drift = _change(rising, regularized), _change(flat, regularized)
    excess = gain.minus(drift).estimate()
    unregularized = flat[shared[-1]].minus(flat[shared[0]]).estimate()
    model = sized(results, "7B", progressive)
    start, end = (f"{flat[step].mean:.2f}% (step {step})" for step in (shared[0], shared[-1]))
    return Finding.of(
        [
            Quantity(f"{model}: sparsity gain while λ > 0, ProSparse minus Vanilla ReLU", excess, "points").more_than(
                allowed
            ),
            Quantity(
                f"{model}: sparsity gain of Vanilla ReLU", unregularized, "points", paper="stays near 66%"
            ).at_most(allowed),
        ],
        f"On held-out text, the sparsity of Vanilla ReLU goes from {start} to {end}. Over the {steps} steps of stages "
        f"with λ > 0, that of ProSparse changes by {1000 * gain.mean / steps:+.2f} points per 1,000 steps, and that "
        f"of Vanilla ReLU by {1000 * drift.mean / steps:+.2f} over the same steps.",
    )


def _regularized(stages: list[Stage], step: int) -> bool:
    """Return whether λ > 0; of a stage with a target, only the first step may have none."""
    index, start = stage_at(stages, step)
    return step > start + 1 if stages[index].steered else factor(stages, step) > 0


def _over_steps(results: Results, run: str) -> dict[int, Sample]:
    """Return the held-out sparsity of a run's checkpoints, its start included, by step."""
    return {stage.step: sample_of(results, run, stage.seeds, "sparsity") for stage in results.stage_sparsity(run)}


def _change(over_steps: dict[int, Sample], intervals: list[tuple[int, int]]) -> Sample:
    """Return the change of sparsity over some intervals of steps."""
    changes = [over_steps[end].minus(over_steps[start]) for start, end in intervals]
    total = changes[0]
    for change in changes[1:]:
        total = total.plus(change)
    return total
