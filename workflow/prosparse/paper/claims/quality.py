"""The quality by which claims compare pairs: average performance or held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prosparse.paper.claims.finding import Finding, Quantity
from prosparse.paper.results.reader import Results
from prosparse.paper.results.samples import heldout_sample, performance_sample
from prosparse.paper.statistics.estimate import Estimate
from prosparse.paper.statistics.sample import Sample


@dataclass(frozen=True)
class Quality:
    """The measure by which pairs are compared, as a cost: lower is better."""

    costs: dict[str, Sample]
    tolerance: float
    unit: str
    explanation: str

    def worse(self, pair: str, than: str) -> Estimate:
        """Estimate how much worse ``pair`` is (negative: better), on the same rows and seeds."""
        return self.costs[pair].minus(self.costs[than]).estimate()

    def cost(self, name: str, difference: Estimate, paper: str = "") -> Quantity:
        """Return a difference as a quantity of a test."""
        return Quantity(name, difference, self.unit, self.digits, paper)

    @property
    def drop(self) -> str:
        """What a positive cost is called."""
        return "loss increase" if self.unit == "nats/token" else "performance drop"

    @property
    def gain(self) -> str:
        """What a negative cost is called."""
        return "loss reduction" if self.unit == "nats/token" else "performance gain"

    @property
    def digits(self) -> int:
        return 3 if self.unit == "nats/token" else 2

    def show(self, difference: Estimate) -> str:
        """Format a difference as ``0.031 nats/token worse (95% interval 0.025 to 0.037)``."""
        if round(difference.mean, self.digits) == 0 and difference.error == 0:
            return "neither better nor worse"
        word, shown = ("worse", difference) if difference.mean > 0 else ("better", -difference)
        number, _, interval = shown.show(self.digits).partition(" ")
        return f"{number} {self.unit} {word} {interval}".rstrip()


def quality(results: Results, pairs: Sequence[str], tolerance: dict[str, float]) -> Quality:
    """Choose average performance if it can resolve the tolerance, else held-out loss.

    Average performance is chosen if all seven columns exist, the first pair beats chance by more than two standard
    errors, and no difference from the first pair has a standard error above the tolerance.
    """
    first, *others = pairs
    scores = {pair: sample for pair in pairs if (sample := performance_sample(results, pair)) is not None}
    average = results.benchmarks(*results.experiment.pair(first)).average()
    if len(scores) == len(pairs) and average.value is not None:
        reached = scores[first].estimate()
        chance = average.chance.mean if average.chance is not None else None
        errors = [scores[other].minus(scores[first]).estimate().error for other in others]
        resolution = max(errors, default=reached.error)
        if chance is not None and reached.mean - chance > 2 * reached.error and resolution <= tolerance["performance"]:
            costs = {pair: sample.times(-1) for pair, sample in scores.items()}
            return Quality(costs, tolerance["performance"], "points", "Quality is measured by average performance.")
        beside = f", where chance is {chance:.2f}" if chance is not None else ""
        resolved = f"; differences are resolved to ± {resolution:.2f}" if resolution < float("inf") else ""
        why = f"average performance cannot decide ({reached.mean:.2f} ± {reached.error:.2f}{beside}{resolved})"
    elif average.value is not None:
        why = f"only {len(average.used)} of the 7 columns of average performance were measured"
    else:
        why = "no benchmark has a score"
    losses = {pair: heldout_sample(results, pair, "loss") for pair in pairs}
    return Quality(losses, tolerance["loss"], "nats/token", f"Quality is measured by held-out loss, because {why}.")


def explained(finding: Finding, measures: Sequence[Quality]) -> Finding:
    """Return a finding whose evidence ends with what quality is, once."""
    return replace(
        finding, evidence="\n".join([finding.evidence, *dict.fromkeys(each.explanation for each in measures)])
    )
