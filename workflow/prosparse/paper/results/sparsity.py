"""The held-out sparsity and loss of a pair (run, activation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prosparse.experiment.training_free import AT_COST, Method
from prosparse.paper.results.value import Value


@dataclass(frozen=True)
class CorpusSparsity:
    corpus: str
    stands_for: str
    sparsity: Value
    loss: Value
    tokens: float


@dataclass(frozen=True)
class Sparsity:
    """A pair's held-out measurement: percent, nats per token, bits per byte.

    ``dead_neurons``: the share per layer that no held-out token activates; None in a measurement without it.
    """

    sparsity: Value
    layers: tuple[Value, ...]
    loss: Value
    bits_per_byte: Value
    corpora: tuple[CorpusSparsity, ...]
    dead_neurons: tuple[Value, ...] | None = None

    @classmethod
    def of(cls, seeds: Sequence[dict[str, Any]]) -> Sparsity:
        """Return what the measurements of all seeds record (``measure/sparsity.py``)."""
        return cls(
            sparsity=Value(tuple(100 * entry["sparsity"] for entry in seeds)),
            layers=_by_layer(seeds, "layer_sparsity"),
            dead_neurons=_by_layer(seeds, "dead_neurons") if all("dead_neurons" in entry for entry in seeds) else None,
            loss=Value(tuple(entry["loss"] for entry in seeds)),
            bits_per_byte=Value(tuple(entry["bits_per_byte"] for entry in seeds)),
            corpora=tuple(
                CorpusSparsity(
                    corpus=name,
                    stands_for=first["stands_for"],
                    sparsity=Value(tuple(100 * entry["corpora"][name]["sparsity"] for entry in seeds)),
                    loss=Value(tuple(entry["corpora"][name]["loss"] for entry in seeds)),
                    tokens=first["tokens"],
                )
                for name, first in seeds[0]["corpora"].items()
            ),
        )

    def by_dataset(self) -> dict[str, Value]:
        """Return the sparsity of each data set of Table 8, weighted by tokens if several corpora stand for it."""
        found: dict[str, list[CorpusSparsity]] = {}
        for corpus in self.corpora:
            found.setdefault(corpus.stands_for, []).append(corpus)
        return {
            name: _weighted([c.sparsity for c in group], [c.tokens for c in group]) for name, group in found.items()
        }


@dataclass(frozen=True)
class StageSparsity:
    """The measurement after one stage of a run."""

    stage: int | None  # None: the checkpoint that the run starts from, under the run's activation
    step: int
    sparsity: Sparsity
    seeds: tuple[dict[str, Any], ...]  # as recorded, with the values of every sequence


@dataclass(frozen=True)
class TrainingFreeSparsity:
    """The measurement of a dense pair under thresholds that need no training.

    Attributes:
        target: sparsity on the calibration text, a share; None: the largest at 1% higher perplexity.
        inputs: percent of zeros in the inputs of gate and up projection.
    """

    method: Method
    target: float | None
    sparsity: Sparsity
    inputs: Value
    seeds: tuple[dict[str, Any], ...]  # as recorded, with the values of every sequence

    @classmethod
    def of(cls, seeds: tuple[dict[str, Any], ...]) -> TrainingFreeSparsity:
        """Return what the measurements of one setting record (``measure/training_free.py``)."""
        method, _, target = seeds[0]["setting"].partition("-")
        inputs = Value(tuple(100 * entry["input_sparsity"] for entry in seeds))
        return cls(method, None if target == AT_COST else float(target), Sparsity.of(seeds), inputs, seeds)

    @property
    def skipped(self) -> Value:
        """Percent of the FFN's weights that need not be read, with all that is known when they would be.

        CATS knows the neurons after the gate projection, TEAL the inputs of each projection before it, and CETT the
        neurons only after gate and up projection.
        """
        pairs = zip(self.sparsity.sparsity.seeds, self.inputs.seeds, strict=True)
        match self.method:
            case "cats":
                return Value(tuple(2 / 3 * x1 for x1, _ in pairs))
            case "teal":
                return Value(tuple((2 * inputs + x1) / 3 for x1, inputs in pairs))
            case "cett":
                return Value(tuple(x1 / 3 for x1, _ in pairs))


def _by_layer(seeds: Sequence[dict[str, Any]], key: str) -> tuple[Value, ...]:
    """Return a share of every layer in percent."""
    layers = zip(*(entry[key] for entry in seeds), strict=True)
    return tuple(Value(tuple(100 * share for share in layer)) for layer in layers)


def _weighted(values: Sequence[Value], weights: Sequence[float]) -> Value:
    total = math.fsum(weights)
    columns = zip(*(value.seeds for value in values), strict=True)
    return Value(tuple(math.fsum(w * x for w, x in zip(weights, column, strict=True)) / total for column in columns))
