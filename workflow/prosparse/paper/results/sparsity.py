"""The held-out sparsity and loss of a pair (run, activation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def _by_layer(seeds: Sequence[dict[str, Any]], key: str) -> tuple[Value, ...]:
    """Return a share of every layer in percent."""
    layers = zip(*(entry[key] for entry in seeds), strict=True)
    return tuple(Value(tuple(100 * share for share in layer)) for layer in layers)


def _weighted(values: Sequence[Value], weights: Sequence[float]) -> Value:
    total = math.fsum(weights)
    columns = zip(*(value.seeds for value in values), strict=True)
    return Value(tuple(math.fsum(w * x for w, x in zip(weights, column, strict=True)) / total for column in columns))
