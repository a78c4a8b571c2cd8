"""The held-out sparsity and loss of a pair (run, activation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    """A pair's held-out measurement: percent, nats per token, bits per byte."""

    sparsity: Value
    layers: tuple[Value, ...]
    loss: Value
    bits_per_byte: Value
    corpora: tuple[CorpusSparsity, ...]

    def by_dataset(self) -> dict[str, Value]:
        """Return the sparsity of each data set of Table 8, weighted by tokens if several corpora stand for it."""
        found: dict[str, list[CorpusSparsity]] = {}
        for corpus in self.corpora:
            found.setdefault(corpus.stands_for, []).append(corpus)
        return {
            name: _weighted([c.sparsity for c in group], [c.tokens for c in group]) for name, group in found.items()
        }


def _weighted(values: Sequence[Value], weights: Sequence[float]) -> Value:
    total = math.fsum(weights)
    columns = zip(*(value.seeds for value in values), strict=True)
    return Value(tuple(math.fsum(w * x for w, x in zip(weights, column, strict=True)) / total for column in columns))
