"""A median with its quartiles, the form in which timings are recorded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quartiles:
    median: float
    lower: float  # quartiles
    upper: float

    @classmethod
    def read(cls, raw: dict[str, float]) -> Quartiles:
        return cls(raw["median"], raw["lower_quartile"], raw["upper_quartile"])
