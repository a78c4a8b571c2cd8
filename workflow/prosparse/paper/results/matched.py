"""Methods at equal sparsity, interpolated within their own pairs, and their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prosparse.experiment.schedules import Comparison
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.samples import heldout_sample
from prosparse.paper.results.sparsity import Sparsity
from prosparse.paper.results.value import Value
from prosparse.paper.statistics.estimate import Estimate
from prosparse.paper.statistics.frontier import Between, between
from prosparse.paper.statistics.sample import Sample

#: Points of sparsity within which a run matches: a run steered to 80% may end at 80.1%.
MATCHED = 0.5


@dataclass(frozen=True)
class Method:
    """A method's pairs, which differ in λ and hence in sparsity.

    A sparsity counts as measured if it is within ``MATCHED`` of the range of the pairs.
    """

    sparsity: Mapping[str, Sample]
    loss: Mapping[str, Sample]
    measured: Mapping[str, Sparsity]

    @classmethod
    def of(cls, results: Results, pairs: Sequence[str]) -> Method:
        """Read every pair.

        Raises:
            MissingResult: if one was not measured.
        """
        return cls(
            {pair: heldout_sample(results, pair, "sparsity") for pair in pairs},
            {pair: heldout_sample(results, pair, "loss") for pair in pairs},
            {pair: results.sparsity(*results.experiment.pair(pair)) for pair in pairs},
        )

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest sparsity, percent."""
        means = [sample.mean for sample in self.sparsity.values()]
        return min(means), max(means)

    def at(self, sparsity: float) -> Between | None:
        """Find the neighbors of a sparsity (percent), or the two nearest pairs; None if it was not measured.

        Places are logarithms of the density: over these, a frontier is closer to a line than over sparsity.
        """
        places = {pair: [_place(each) for each in sample.by_seed] for pair, sample in self.sparsity.items()}
        seeds = len(next(iter(places.values())))
        return between(places, [_place(sparsity)] * seeds, beyond=_place(sparsity) - _place(sparsity - MATCHED))

    def loss_at(self, sparsity: float) -> Sample | None:
        """Interpolate the held-out loss; None if that was not measured."""
        place = self.at(sparsity)
        return None if place is None else place.sample(self.loss)

    def layers_at(self, sparsity: float) -> list[Value] | None:
        """Interpolate every layer's sparsity (percent); None if that was not measured."""
        return self._by_layer(sparsity, {pair: found.layers for pair, found in self.measured.items()})

    def dead_at(self, sparsity: float) -> list[Value] | None:
        """Interpolate every layer's share of dead neurons (percent); None if it was not measured."""
        dead = {pair: found.dead_neurons for pair, found in self.measured.items() if found.dead_neurons is not None}
        return self._by_layer(sparsity, dead) if len(dead) == len(self.measured) else None

    def _by_layer(self, sparsity: float, layers: Mapping[str, Sequence[Value]]) -> list[Value] | None:
        place = self.at(sparsity)
        if place is None:
            return None
        indices = range(len(layers[place.left]))
        return [
            Value(tuple(place.by_seed({pair: each[index].seeds for pair, each in layers.items()}))) for index in indices
        ]


def measured_seeds(results: Results, comparison: Comparison) -> list[int]:
    """Return the seeds with which every pair of the reference has been measured; all seeds if there are none.

    Long runs finish one seed after the other; a comparison does not wait for the last.
    """
    pairs = [results.experiment.pair(pair) for pair in comparison.methods[comparison.reference]]
    measured = [
        seed
        for seed in results.experiment.seeds
        if all(str(activation) in results.of_seeds([seed]).activations(run) for run, activation in pairs)
    ]
    return measured or results.experiment.seeds


def methods(results: Results, comparison: Comparison) -> dict[str, Method]:
    """Return the methods of a comparison whose pairs have all been measured, with the seeds of ``measured_seeds``."""
    results, found = results.of_seeds(measured_seeds(results, comparison)), {}
    for name, pairs in comparison.methods.items():
        try:
            found[name] = Method.of(results, pairs)
        except MissingResult:
            continue
    return found


def differences(found: Mapping[str, Method], than: str, sparsity: float) -> dict[str, Estimate]:
    """Estimate how much more every other method loses than ``than`` at a sparsity (nats per token).

    Without the methods that did not measure that sparsity; empty if ``than`` did not.
    """
    base = found[than].loss_at(sparsity) if than in found else None
    if base is None:
        return {}
    losses = {name: method.loss_at(sparsity) for name, method in found.items() if name != than}
    return {name: loss.minus(base).estimate() for name, loss in losses.items() if loss is not None}


def best(found: Mapping[str, Method], sparsity: float) -> str | None:
    """Return the method with the lowest loss at a sparsity; None if none measured it."""
    losses = {name: loss.mean for name, method in found.items() if (loss := method.loss_at(sparsity)) is not None}
    return min(losses, key=losses.__getitem__, default=None)


def _place(sparsity: float) -> float:
    """Return minus the logarithm of the density, which rises with the sparsity (percent)."""
    return -math.log(max(100 - sparsity, 1e-6))
