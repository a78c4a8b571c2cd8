"""Memory per token of a batch during inference, computed from the model's shape."""

from __future__ import annotations

from dataclasses import dataclass

#: Share of the free memory that a batch may take; allocators waste some of the rest.
USABLE = 0.8


@dataclass(frozen=True)
class TokenMemory:
    """Bytes per token: ``kv_cache`` in all layers, ``working`` in the current layer and in the output head."""

    kv_cache: int
    working: int

    @classmethod
    def of(
        cls, layers: int, kv_width: int, hidden_size: int, intermediate_size: int, vocabulary_size: int, size: int
    ) -> TokenMemory:
        """Compute from the model's shape.

        Args:
            kv_width: key heads times their size.
            size: bytes per number.
        """
        # residual stream, norm, queries, keys, values, attention: at most eight times the width; gate before and after
        # its activation, up and their product: four times the intermediate size; every token may be scored
        working = size * (8 * hidden_size + 4 * intermediate_size + vocabulary_size)
        return cls(kv_cache=2 * layers * kv_width * size, working=working)

    @property
    def total(self) -> int:
        return self.kv_cache + self.working

    def tokens(self, free: float) -> int:
        """Number of tokens per batch that fit into ``free`` bytes, at least one."""
        return max(1, int(USABLE * free) // self.total)
