"""Measured recall, precision and predicted sparsity of activation predictors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from prosparse.paper.results import accelerated
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.value import Value


@dataclass(frozen=True)
class Point:
    """A kind of predictor at one decision threshold; shares in percent."""

    decision_threshold: float
    recall: float
    predicted_sparsity: float


@dataclass(frozen=True)
class KindOfPrediction:
    """Percent at the decision threshold; ``loss`` is the model's under prediction, ``sweep`` has one curve per seed."""

    rank: int | None
    recall: Value
    precision: Value | None
    predicted_sparsity: Value
    loss: Value | None
    sweep: tuple[tuple[Point, ...], ...]

    def recall_at(self, predicted_sparsity: Value) -> Value:
        """Return the recall, seed by seed, at the threshold where this kind reaches ``predicted_sparsity``."""
        wanted = zip(self.sweep, predicted_sparsity.seeds, strict=True)
        return Value(tuple(interpolated(points, at) for points, at in wanted))


def interpolated(points: Sequence[Point], predicted_sparsity: float) -> float:
    """Interpolate recall in percent at a predicted sparsity in percent, linearly between the points of a sweep.

    Predicting every neuron active has recall 100 and predicting none 0, so the curve ends there. Mixing two thresholds
    reaches every point between them.
    """
    curve = [(0.0, 100.0), *((point.predicted_sparsity, point.recall) for point in points), (100.0, 0.0)]
    curve.sort(key=lambda point: (point[0], -point[1]))
    for (left, high), (right, low) in pairwise(curve):
        if left <= predicted_sparsity <= right:
            return high if right == left else high + (low - high) * (predicted_sparsity - left) / (right - left)
    raise ValueError(f"predicted sparsity is {predicted_sparsity:g}: not between 0 and 100")


@dataclass(frozen=True)
class Prediction:
    """A pair's predictors on held-out text; ``loss`` is the exact model's."""

    decision_threshold: float
    sparsity: Value
    loss: Value
    kinds: dict[str, KindOfPrediction]


def read_prediction(results: Results, pair: str) -> Prediction:
    """Read the measurements of a pair's predictors.

    Raises:
        MissingResult: if they do not exist or lack a kind that the experiment names.
    """
    seeds = results.prediction(*results.experiment.pair(pair))
    found = {}
    for kind in accelerated.kinds(results.experiment):
        if any(kind not in seed["kinds"] for seed in seeds):
            path = results.layout.prediction(*results.experiment.pair(pair), results.experiment.seeds[0])
            raise MissingResult(f"{path}: no predictor of kind {kind}; it has {', '.join(seeds[0]['kinds'])}")
        found[kind] = _kind([seed["kinds"][kind] for seed in seeds])
    return Prediction(
        seeds[0]["decision_threshold"],
        Value(tuple(100 * seed["sparsity"] for seed in seeds)),
        Value(tuple(seed["loss"] for seed in seeds)),
        found,
    )


def _kind(seeds: list[dict[str, Any]]) -> KindOfPrediction:
    def value(key: str, scale: float = 1.0) -> Value | None:
        numbers = [seed.get(key) for seed in seeds]
        return None if any(number is None for number in numbers) else Value(tuple(scale * n for n in numbers))  # type: ignore[operator]

    recall, predicted_sparsity = value("activation_recall", 100), value("predicted_sparsity", 100)
    assert recall is not None
    assert predicted_sparsity is not None
    sweep = tuple(
        tuple(
            Point(point["decision_threshold"], 100 * point["activation_recall"], 100 * point["predicted_sparsity"])
            for point in seed["sweep"]
        )
        for seed in seeds
    )
    return KindOfPrediction(
        seeds[0].get("rank"), recall, value("precision", 100), predicted_sparsity, value("loss"), sweep
    )
