"""The rows of Table 2 as printed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from prosparse.published.tables import SCALES, published_table


@dataclass(frozen=True)
class Setting:
    """A row of Table 2; dense rows print no sparsity."""

    name: str
    scale: str
    printed: dict[str, str]

    @property
    def is_dense(self) -> bool:
        return not self.printed["average_sparsity"]

    @property
    def density(self) -> float:
        return 1.0 if self.is_dense else round(1 - float(self.printed["average_sparsity"]) / 100, 6)

    def microseconds(self, step: int) -> float:
        return float(self.printed[f"step{step}_time_us"])

    def speedup(self, step: int) -> float:
        return float(self.printed[f"step{step}_speedup"])


@cache
def settings() -> tuple[Setting, ...]:
    """Return the rows of Table 2 and its early baselines, sorted by scale."""
    rows = [*published_table("table2_acceleration"), *published_table("table2_early_baselines")]
    found = [Setting(row["setting"], scale_of(row["setting"]), row) for row in rows]
    return tuple(sorted(found, key=lambda setting: list(SCALES).index(setting.scale)))


def sparse_settings() -> tuple[str, ...]:
    """Return the settings of Table 2 with a printed sparsity, in the tables' order."""
    rows = [*published_table("table2_acceleration"), *published_table("table2_early_baselines")]
    return tuple(row["setting"] for row in rows if row["average_sparsity"])


def scale_of(row: str) -> str:
    """Return the model size of a published row; the early tables name no size, which means 7B."""
    return next((scale for scale in ("13B", "7B", "1B") if scale in row), "7B")


def largest_speedup() -> Setting:
    """Return the row with the largest speedup printed in the paper."""
    return max(settings(), key=lambda setting: float(setting.printed.get("speedup_to_dense") or 0))
