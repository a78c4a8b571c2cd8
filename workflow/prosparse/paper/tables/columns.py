"""Columns that several tables share, and their values."""

from __future__ import annotations

from collections.abc import Sequence

from prosparse.paper.results.value import Value, mean_of
from prosparse.paper.tables.table import Cell, Column
from prosparse.published.tables import GROUPS, LABELS

LOSS = Column("held_out_loss", "Held-out loss", "nats/token", 3)


BITS = Column("bits_per_byte", "Bits/byte", "", 3)


PERFORMANCE = [Column(name, LABELS[name], "%") for name in (*GROUPS, "average_performance")]


SPARSITY = Column("average_sparsity", LABELS["average_sparsity"], "%")


TOKENS = Column("accumulated_tokens", "Accumulated tokens", "tokens", 0)


FACTOR = Column("lambda", "Final λ", "", None)


def billions(text: str) -> str:
    """Write ``34.60`` billion in full, as a string of digits."""
    return str(round(float(text) * 1e9))


def final_value(final: list[dict[str, float | None]], key: str, scale: float = 1) -> Value | None:
    """Return ``scale`` times a stage ledger's final ``key``, one value per seed; None if nothing was trained."""
    numbers = [number for last in final if (number := last[key]) is not None]
    return Value(tuple(scale * number for number in numbers)) if len(numbers) == len(final) else None


def layer_cells(layers: Sequence[Value] | None, dead: Sequence[Value] | None) -> dict[str, Cell]:
    """Return the cells of columns ``dead_neurons`` and ``least_sparse_layer`` (percent by layer); empty for None."""
    cells = {"dead_neurons": Cell(mean_of(dead) if dead else None), "least_sparse_layer": Cell()}
    if layers:
        index, least = min(enumerate(layers), key=lambda each: each[1].mean)
        cells["least_sparse_layer"] = Cell(text=f"{least.mean:.1f} (layer {index})")
    return cells
