"""The benchmark scores of a pair (run, activation), and the paper's averages over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prosparse.paper.results.value import Value, mean_of
from prosparse.published.tables import GROUPS

#: Column that the paper answers by generation -> our benchmark that answers its rows by likelihood.
LIKELIHOODS = {"mmlu": "mmlu_likelihood", "bbh": "bbh_likelihood"}


def above_chance(score: Value | None, chance: Value | None) -> bool:
    """Return whether a score exceeds chance by more than two standard errors; if no chance is known, any score does."""
    return score is not None and (chance is None or score.mean - chance.mean > 2 * score.total_error)


@dataclass(frozen=True)
class BenchmarkColumn:
    """One of the seven columns, or their average: the mean of what was measured, and what is missing."""

    value: Value | None
    chance: Value | None
    used: tuple[str, ...]
    missing: dict[str, str]

    @property
    def above_chance(self) -> bool:
        return above_chance(self.value, self.chance)


@dataclass(frozen=True)
class Benchmarks:
    """A pair's benchmark scores in percent."""

    scores: dict[str, Value]
    chances: dict[str, Value]
    details: dict[str, dict[str, Any]]
    missing: dict[str, str]

    def column(self, name: str) -> BenchmarkColumn:
        wanted = GROUPS[name]
        used = tuple(benchmark for benchmark in wanted if benchmark in self.scores)
        return BenchmarkColumn(
            value=mean_of([self.scores[b] for b in used]) if used else None,
            chance=mean_of([self.chances[b] for b in used]) if used and all(b in self.chances for b in used) else None,
            used=used,
            missing={b: self.missing[b] for b in wanted if b not in used},
        )

    def average(self, over: Iterable[str] = GROUPS) -> BenchmarkColumn:
        """Return the unweighted mean of the columns with a value; ``missing`` holds wholly missing columns."""
        columns = {name: self.column(name) for name in over}
        present = {name: column for name, column in columns.items() if column.value is not None}
        chances = [column.chance for column in present.values() if column.chance is not None]
        return BenchmarkColumn(
            value=mean_of([c.value for c in present.values() if c.value is not None]) if present else None,
            chance=mean_of(chances) if chances and len(chances) == len(present) else None,
            used=tuple(present),
            missing={name: "; ".join(c.missing.values()) for name, c in columns.items() if c.value is None},
        )

    @property
    def complete(self) -> bool:
        return not self.missing
