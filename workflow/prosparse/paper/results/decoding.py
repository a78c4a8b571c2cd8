"""Measured decoding speed of trained and synthetic models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from prosparse.experiment import table2_rows
from prosparse.paper.results.labels import label
from prosparse.paper.results.operators import machine
from prosparse.paper.results.quartiles import Quartiles
from prosparse.paper.results.reader import MissingResult, Results

#: Decoding mode -> its description. ``torch`` is the model as transformers implements it.
MODES = {
    "torch": "transformers, dense",
    "dense": "ours, dense",
    "exact": "ours, exact",
    "predicted": "ours, predicted",
}


ENGINES = {"llama.cpp": "llama.cpp, dense", "powerinfer": "PowerInfer, predicted"}


@dataclass(frozen=True)
class Arm:
    """A model decoded in one way, or by another engine."""

    name: str
    raw: dict[str, Any]

    @property
    def missing(self) -> str | None:
        """Say why it was not timed; None if it was."""
        return self.raw.get("missing")

    def spread(self, key: str) -> Quartiles | None:
        return Quartiles.read(self.raw[key]) if key in self.raw else None

    @property
    def tokens_per_second(self) -> Quartiles:
        return Quartiles.read(self.raw["tokens_per_second"])

    @property
    def milliseconds(self) -> float:
        """Median time per token; the reciprocal of the rate for an engine that reports only that."""
        time = self.spread("milliseconds_per_token")
        return 1e3 / self.tokens_per_second.median if time is None else time.median

    def speedup_over(self, other: str) -> Quartiles | None:
        """Return the speedup over our own dense decoding or an engine, turn by turn; None if they took no turns."""
        return self.spread(f"times_faster_than_{other}")

    @property
    def speedup(self) -> Quartiles | None:
        """Return the speedup over our own dense decoding; None without one measured alongside."""
        return self.speedup_over("dense")

    @property
    def bytes(self) -> int | None:
        """Bytes read per token."""
        return self.raw["bytes"]["all"] if "bytes" in self.raw else None


@dataclass(frozen=True)
class Model:
    """A trained model, or one with synthetic weights of shape ``shape``, in one precision.

    ``row`` is the setting that it stands for.
    """

    row: str
    precision: str
    shape: str | None
    pair: str | None
    machine: str
    raw: dict[str, Any]

    @property
    def label(self) -> str:
        return self.row if self.shape is None else f"Synthetic {self.shape} as {self.row}"

    @property
    def missing(self) -> str | None:
        """Say why it was not decoded in this precision; None if it was."""
        return self.raw.get("missing")

    @property
    def size(self) -> str:
        """Describe its architecture."""
        shape = self.raw["architecture"]
        return f"d_model {shape['hidden_size']}, d_ff {shape['intermediate_size']}, {shape['layers']} layers"

    @property
    def modes(self) -> dict[str, Arm]:
        """Its arms in the order of ``MODES``."""
        return {name: Arm(name, self.raw["modes"][name]) for name in MODES if name in self.raw["modes"]}

    @property
    def engines(self) -> dict[str, Arm]:
        return {name: Arm(name, raw) for name, raw in self.raw.get("engines", {}).items()}

    def bytes_allow(self, mode: str, over: str = "dense") -> float | None:
        """Return a mode's largest speedup that the bytes read allow."""
        least, base = self.modes.get(mode), self.modes.get(over)
        if least is None or base is None or not least.bytes or not base.bytes:
            return None
        return base.bytes / least.bytes

    def over(self, arm: Arm, base: str) -> float | None:
        """Return the ratio of median times; None if the other was not timed."""
        if base not in self.modes:
            return None
        return self.modes[base].milliseconds / arm.milliseconds


@dataclass(frozen=True)
class Decoding:
    """One file of times; of the trained models if ``shape`` is None."""

    shape: str | None
    machine: str
    on_gpu: bool
    prompts: int
    prompt_tokens: int
    new_tokens: int
    models: tuple[Model, ...]

    @property
    def precisions(self) -> list[str]:
        return list(dict.fromkeys(model.precision for model in self.models))

    def in_first_precision(self) -> Decoding:
        """Leave out the other precisions."""
        first = tuple(model for model in self.models if model.precision == self.precisions[0])
        return replace(self, models=first)

    @property
    def conditions(self) -> str:
        rates = [Quartiles.read(model.raw["bandwidth"]) for model in self.models if model.missing is None]
        weights = ", ".join(self.precisions)
        return (
            f"{self.machine}, {weights} weights, one sequence, {self.prompts} prompts of {self.prompt_tokens} "
            f"tokens, {self.new_tokens} new tokens each, greedy; between the runs, only reading memory reached "
            f"{min(rate.lower for rate in rates):.1f} to {max(rate.upper for rate in rates):.1f} GB/s"
        )


def _read(raw: dict[str, Any], shape: str | None) -> Decoding:
    words = machine(raw)
    return Decoding(
        shape,
        words,
        raw["device"] != "cpu",
        raw["prompts"],
        raw["prompt_tokens"],
        raw["new_tokens"],
        tuple(
            Model(model["row"], model["precision"], shape, model.get("pair"), words, model) for model in raw["models"]
        ),
    )


def _trained(results: Results) -> Decoding | None:
    decoding, rows = results.experiment.decoding, table2_rows.decoded(results.experiment)
    if decoding is None or not rows:
        return None
    found = _read(results.decoding(), None)
    measured = {(model.row, model.precision) for model in found.models}
    for row, precision in product(rows, decoding.precisions):
        if (row, precision) not in measured:
            raise MissingResult(f"{results.layout.decoding()}: no decoding times of the row {row} in {precision}")
    return found


def _synthetic(results: Results) -> dict[str, Decoding]:
    if results.experiment.decoding is None:
        return {}
    return {shape: _read(results.decoding(shape), shape) for shape in results.experiment.decoding.shapes}


def decoding_in_all_precisions(results: Results) -> list[Decoding]:
    """Return all times, the trained models' first.

    Raises:
        MissingResult: if the experiment times decoding, but the times do not exist or lack a row.
    """
    return [found for found in (_trained(results), *_synthetic(results).values()) if found is not None]


def trained_decoding(results: Results) -> Decoding | None:
    """Return the times of the trained models in the first precision; None if the experiment times no decoding.

    Raises:
        MissingResult: as above.
    """
    found = _trained(results)
    return None if found is None else found.in_first_precision()


def synthetic_decoding(results: Results) -> dict[str, Decoding]:
    """Return shape -> times of its synthetic models in the shape's first precision.

    Raises:
        MissingResult: if the times of one of the experiment's shapes do not exist.
    """
    return {shape: found.in_first_precision() for shape, found in _synthetic(results).items()}


def every_decoding(results: Results) -> list[Decoding]:
    """Return all times in the first precision, the trained models' first."""
    return [found.in_first_precision() for found in decoding_in_all_precisions(results)]


def named(results: Results, model: Model) -> str:
    """Return a model's name for readers, with the row that it stands for: ``small, original (row Dense-7B)``."""
    return model.label if model.pair is None else f"{label(results.experiment, model.pair)} (row {model.row})"


def best_model(models: Sequence[Model], key: Callable[[Model], float | None]) -> Model | None:
    """Return the model with the largest value; None if none has a value."""
    known = [(value, model) for model in models if (value := key(model)) is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None
