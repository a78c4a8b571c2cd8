"""Measured decoding speed of trained and synthetic models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


#: Part of the bytes read per token -> its description.
PARTS = {
    "attention": "attention",
    "gate": "FFN gate",
    "active_rows": "FFN up and down",
    "predictor": "predictor",
    "head": "output head",
    "kv_cache": "keys and values",
}


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

    @property
    def speedup(self) -> Quartiles | None:
        """Return the speedup over our own dense decoding, prompt by prompt; None without one measured alongside."""
        return self.spread("times_faster_than_dense")

    @property
    def bytes(self) -> int | None:
        """Bytes read per token."""
        return self.raw["bytes"]["all"] if "bytes" in self.raw else None

    def milliseconds_by_part(self) -> dict[str, float]:
        """Return the time that each part's bytes take at the memory bandwidth; empty if the bytes are unknown."""
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
        rates = [Quartiles.read(model.raw["bandwidth"]) for model in self.models]
        return (
            f"{self.machine}, {self.dtype} weights, one sequence, {self.prompts} prompts of {self.prompt_tokens} "
            f"tokens, {self.new_tokens} new tokens each, greedy; reading the weights and doing nothing else, in "
            f"between, reached {min(rate.lower for rate in rates):.1f} to {max(rate.upper for rate in rates):.1f} GB/s"
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


def trained_decoding(results: Results) -> Decoding | None:
    """Return the times of the trained models; None if the experiment times no decoding.

    Raises:
        MissingResult: if it does but the times do not exist or lack a row.
    """
    wanted = table2_rows.decoded(results.experiment)
    if results.experiment.decoding is None or not wanted:
        return None
    found = _read(results.decoding(), None)
    for row in wanted:
        if row not in {model.row for model in found.models}:
            raise MissingResult(f"{results.layout.decoding()}: no decoding times of the row {row}")
    return found


def synthetic_decoding(results: Results) -> dict[str, Decoding]:
    """Return shape -> times of its synthetic models.

    Raises:
        MissingResult: if the times of one of the experiment's shapes do not exist.
    """
    if results.experiment.decoding is None:
        return {}
    return {shape: _read(results.decoding(shape), shape) for shape in results.experiment.decoding.shapes}


def every_decoding(results: Results) -> list[Decoding]:
    """Return all times, the trained models' first."""
    return [found for found in (trained_decoding(results), *synthetic_decoding(results).values()) if found is not None]


def named(results: Results, model: Model) -> str:
    """Return a model's name for readers, with the row that it stands for: ``small, original (row Dense-7B)``."""
    return model.label if model.pair is None else f"{label(results.experiment, model.pair)} (row {model.row})"


def best_model(models: Sequence[Model], key: Callable[[Model], float | None]) -> Model | None:
    """Return the model with the largest value; None if none has a value."""
    known = [(value, model) for model in models if (value := key(model)) is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None
