"""The quality by which claims compare pairs: average performance or held-out loss."""

from __future__ import annotations

from dataclasses import dataclass

from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value


@dataclass(frozen=True)
class Quality:
    """The measure by which pairs are compared, as a cost: lower is better."""

    costs: dict[str, Value]
    tolerance: float
    unit: str
    explanation: str

    def worse(self, pair: str, than: str) -> Value:
        """Return how much worse ``pair`` is (negative: better)."""
        return self.costs[pair].minus(self.costs[than])

    def show(self, difference: Value | float) -> str:
        """Format a difference as ``0.031 nats/token worse``, with its error where known."""
        value = difference if isinstance(difference, Value) else Value((difference,))
        digits = 3 if self.unit == "nats/token" else 2
        if round(value.mean, digits) == 0 and value.total_error == 0:
            return "no better and no worse"
        error = f" ± {value.total_error:.{digits}f}" if value.total_error > 0 else ""
        return f"{abs(value.mean):.{digits}f}{error} {self.unit} {'worse' if value.mean > 0 else 'better'}"


def quality(results: Results, pairs: list[str], tolerance: dict[str, float]) -> Quality:
    """Choose average performance if it can resolve the tolerance, else held-out loss.

    Average performance is chosen if all seven columns exist, the first pair beats chance by more than two standard
    errors, and no difference has a standard error above the tolerance.
    """
    measured = {text: results.benchmarks(*results.experiment.pair(text)) for text in pairs}
    averages = {text: benchmarks.average() for text, benchmarks in measured.items()}
    first = averages[pairs[0]]
    if all(benchmarks.complete for benchmarks in measured.values()) and first.value is not None:
        scores = {text: average.value for text, average in averages.items() if average.value is not None}
        errors = sorted(value.total_error for value in scores.values())
        resolution = (errors[-1] ** 2 + errors[-2] ** 2) ** 0.5 if len(errors) > 1 else errors[-1]
        above = first.value.mean - first.chance.mean if first.chance is not None else None
        if above is not None and above > 2 * first.value.total_error and resolution <= tolerance["performance"]:
            costs = {text: Value(tuple(-s for s in value.seeds), value.errors) for text, value in scores.items()}
            return Quality(costs, tolerance["performance"], "points", "Quality is average performance.")
        chance = f", chance is {first.chance.mean:.2f}" if first.chance is not None else ""
        why = (
            f"Average performance cannot decide ({first.value.mean:.2f} ± {first.value.total_error:.2f}{chance}; "
            f"differences are resolved to ± {resolution:.2f})"
        )
    elif first.value is not None:
        why = (
            f"Average performance cannot decide ({len(first.used)} of 7 columns: {first.value.mean:.2f} ± "
            f"{first.value.total_error:.2f}"
            + (f", chance is {first.chance.mean:.2f})" if first.chance is not None else ")")
        )
    else:
        why = "No benchmark has a score"
    costs = {text: results.sparsity(*results.experiment.pair(text)).loss for text in pairs}
    return Quality(costs, tolerance["loss"], "nats/token", why + ", so quality is held-out loss.")
