"""Decoding with and without predictors (Table 2, left half): which pairs stand for its rows, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from prosparse.config import Experiment
from prosparse.paper import published
from prosparse.paper.operators import Spread, machine, settings
from prosparse.paper.results import MissingResult, Needs, Results, Value

MARGINAL = "marginal"

#: Kind of predictor -> what it is, in words.
KINDS = {
    "nonzero": "non-zero labels",
    "top": "top labels",
    "svd": "SVD, untrained",
    MARGINAL: "frequency alone",
}

#: Way to decode -> what it is, in words. ``torch`` is the model as transformers has it.
MODES = {
    "torch": "transformers, dense",
    "dense": "ours, dense",
    "exact": "ours, exact",
    "predicted": "ours, predicted",
}
ENGINES = {"llama.cpp": "llama.cpp, dense", "powerinfer": "PowerInfer, predicted"}

#: Part of the bytes that a token reads -> what it is, in words.
PARTS = {
    "attention": "attention",
    "gate": "gate of the FFN",
    "active_rows": "up and down of the FFN",
    "predictor": "predictor",
    "head": "output head",
    "kv_cache": "keys and values",
}

# ---------------------------------------------------------------------------------- the pairs


def pairs(experiment: Experiment) -> dict[str, str]:
    """Rows of Table 2 that a run stands for -> ``run@activation``; a dense row is its original's."""
    found = {}
    for setting in settings():
        row = published.SCALES[setting.scale][0] if setting.is_dense else setting.name
        if row in experiment.rows:
            run, activation = experiment.pair(experiment.rows[row])
            found[setting.name] = f"{run}@{activation}"
    return found


def predicted_pairs(experiment: Experiment) -> dict[str, str]:
    """Those of ``pairs`` that have predictors: SiLU has no zeros to predict."""
    if experiment.predictors is None:
        return {}
    return {row: pair for row, pair in pairs(experiment).items() if experiment.pair(pair)[1].name != "silu"}


def final_pairs(experiment: Experiment) -> dict[str, str]:
    """Those of ``predicted_pairs`` whose benchmarks are also measured under prediction: the final ProSparse rows."""
    finals = {final for _, _, final in published.SCALES.values()}
    return {
        row: pair
        for row, pair in predicted_pairs(experiment).items()
        if row in finals and experiment.answers_benchmarks(*experiment.pair(pair))
    }


def kinds(experiment: Experiment) -> list[str]:
    """Of predictors that are measured; the first is the one that decoding uses."""
    return [] if experiment.predictors is None else [*dict.fromkeys(experiment.predictors.kinds), MARGINAL]


def prediction_needs(experiment: Experiment) -> Needs:
    return Needs(prediction={_split(experiment, pair) for pair in predicted_pairs(experiment).values()})


def predicted_benchmarks_needs(experiment: Experiment) -> Needs:
    finals = {_split(experiment, pair) for pair in final_pairs(experiment).values()}
    return Needs(benchmarks=finals, predicted_benchmarks=finals)


def decoding_needs(experiment: Experiment) -> Needs:
    if experiment.decoding is None:
        return Needs()
    return Needs(decoding=bool(pairs(experiment)), decoding_shapes=set(experiment.decoding.shapes))


def _split(experiment: Experiment, pair: str) -> tuple[str, str]:
    run, activation = experiment.pair(pair)
    return run, str(activation)


# ---------------------------------------------------------------------------------- prediction


@dataclass(frozen=True)
class Point:
    """A kind of predictor at one decision threshold; shares in percent."""

    decision_threshold: float
    recall: float
    predicted_sparsity: float


@dataclass(frozen=True)
class KindOfPrediction:
    """Percent at the decision threshold; ``loss`` is of the model under prediction, ``sweep`` has a curve a seed."""

    rank: int | None
    recall: Value
    precision: Value | None
    predicted_sparsity: Value
    loss: Value | None
    sweep: tuple[tuple[Point, ...], ...]

    def recall_at(self, predicted_sparsity: Value) -> Value:
        """Recall where this kind, at another threshold, predicts as few neurons, seed by seed."""
        wanted = zip(self.sweep, predicted_sparsity.seeds, strict=True)
        return Value(tuple(interpolated(points, at) for points, at in wanted))


def interpolated(points: Sequence[Point], predicted_sparsity: float) -> float:
    """Recall in percent at a predicted sparsity in percent, linear between the points of a sweep.

    Calling every neuron active has recall 100 and none 0, so the curve ends there. A mixture of two
    thresholds reaches every point between them.
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


def prediction(results: Results, pair: str) -> Prediction:
    """What was measured of a pair's predictors.

    Raises:
        MissingResult: it was not, or not of every kind that the experiment names.
    """
    seeds = results.prediction(*results.experiment.pair(pair))
    found = {}
    for kind in kinds(results.experiment):
        if any(kind not in seed["kinds"] for seed in seeds):
            path = results.prediction_file(*results.experiment.pair(pair), results.experiment.seeds[0])
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


# ------------------------------------------------------------------------------------ decoding


@dataclass(frozen=True)
class Arm:
    """A model decoded in one way, or by another engine."""

    name: str
    raw: dict[str, Any]

    @property
    def missing(self) -> str | None:
        """Why it was not timed, None where it was."""
        return self.raw.get("missing")

    def spread(self, key: str) -> Spread | None:
        return Spread.read(self.raw[key]) if key in self.raw else None

    @property
    def tokens_per_second(self) -> Spread:
        return Spread.read(self.raw["tokens_per_second"])

    @property
    def milliseconds(self) -> float:
        """Median time a token; an engine that gives a rate alone has its reciprocal."""
        time = self.spread("milliseconds_per_token")
        return 1e3 / self.tokens_per_second.median if time is None else time.median

    @property
    def speedup(self) -> Spread | None:
        """Over our own dense decoding, prompt by prompt; None where that was not measured beside it."""
        return self.spread("times_faster_than_dense")

    @property
    def bytes(self) -> int | None:
        """What a token reads."""
        return self.raw["bytes"]["all"] if "bytes" in self.raw else None

    def milliseconds_by_part(self) -> dict[str, float]:
        """The time that each part's bytes take at the memory's rate; empty where the bytes are not known."""
        bound = self.spread("bound_milliseconds")
        if bound is None or not self.bytes:
            return {}
        return {part: bound.median * self.raw["bytes"].get(part, 0) / self.bytes for part in PARTS}


@dataclass(frozen=True)
class Model:
    """A trained model, or one with synthetic weights of shape ``shape``; ``row`` is the setting that it stands for."""

    row: str
    shape: str | None
    pair: str | None
    machine: str
    raw: dict[str, Any]

    @property
    def label(self) -> str:
        return self.row if self.shape is None else f"Synthetic {self.shape} as {self.row}"

    @property
    def size(self) -> str:
        """Its architecture in words."""
        shape = self.raw["architecture"]
        return f"d_model {shape['hidden_size']}, d_ff {shape['intermediate_size']}, {shape['layers']} layers"

    @property
    def modes(self) -> dict[str, Arm]:
        """In the order of ``MODES``."""
        return {name: Arm(name, self.raw["modes"][name]) for name in MODES if name in self.raw["modes"]}

    @property
    def engines(self) -> dict[str, Arm]:
        return {name: Arm(name, raw) for name, raw in self.raw.get("engines", {}).items()}

    def bytes_allow(self, mode: str, over: str = "dense") -> float | None:
        """How many times faster a mode could be if bytes were all that counts."""
        least, base = self.modes.get(mode), self.modes.get(over)
        if least is None or base is None or not least.bytes or not base.bytes:
            return None
        return base.bytes / least.bytes

    def over(self, arm: Arm, base: str) -> float | None:
        """The ratio of median times; None where the other was not timed."""
        if base not in self.modes:
            return None
        return self.modes[base].milliseconds / arm.milliseconds


@dataclass(frozen=True)
class Decoding:
    """One file of times."""

    machine: str
    on_gpu: bool
    dtype: str
    prompts: int
    prompt_tokens: int
    new_tokens: int
    models: tuple[Model, ...]

    @property
    def conditions(self) -> str:
        rates = [Spread.read(model.raw["bandwidth"]) for model in self.models]
        return (
            f"{self.machine}, {self.dtype} weights, one sequence, {self.prompts} prompts of {self.prompt_tokens} "
            f"tokens, {self.new_tokens} new tokens each, greedy; in between, the weights and nothing else were read at "
            f"{min(rate.lower for rate in rates):.1f} to {max(rate.upper for rate in rates):.1f} GB/s"
        )


def _read(raw: dict[str, Any], shape: str | None) -> Decoding:
    words = machine(raw)
    return Decoding(
        words,
        raw["device"] != "cpu",
        raw["dtype"],
        raw["prompts"],
        raw["prompt_tokens"],
        raw["new_tokens"],
        tuple(Model(model["row"], shape, model.get("pair"), words, model) for model in raw["models"]),
    )


def trained(results: Results) -> Decoding | None:
    """Times of the trained models; None where the experiment times no decoding.

    Raises:
        MissingResult: it does, and the times do not exist, or lack a row of ``pairs``.
    """
    wanted = pairs(results.experiment)
    if results.experiment.decoding is None or not wanted:
        return None
    found = _read(results.decoding(), None)
    for row in wanted:
        if row not in {model.row for model in found.models}:
            raise MissingResult(f"{results.decoding_file()}: no decoding times of the row {row}")
    return found


def synthetic(results: Results) -> dict[str, Decoding]:
    """Shape -> times of its synthetic models.

    Raises:
        MissingResult: the experiment names a shape whose times do not exist.
    """
    if results.experiment.decoding is None:
        return {}
    return {shape: _read(results.decoding(shape), shape) for shape in results.experiment.decoding.shapes}


def every_decoding(results: Results) -> list[Decoding]:
    """The trained models' times first."""
    return [found for found in (trained(results), *synthetic(results).values()) if found is not None]


def missing_predictors(experiment: Experiment) -> str | None:
    """Why nothing was predicted, None where it was."""
    if experiment.predictors is None:
        return "the experiment trains no predictors"
    return None if predicted_pairs(experiment) else "no run stands for a sparse row of Table 2"


def missing_decoding(experiment: Experiment) -> str | None:
    """Why no decoding was timed, None where it was."""
    if experiment.decoding is None:
        return "the experiment times no decoding"
    return None if pairs(experiment) or experiment.decoding.shapes else "no run stands for a row of Table 2"


def best(models: Sequence[Model], key: Callable[[Model], float | None]) -> Model | None:
    """The model with the largest value; None where none has one."""
    known = [(value, model) for model in models if (value := key(model)) is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None
