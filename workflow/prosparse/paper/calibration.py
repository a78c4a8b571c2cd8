"""``snakemake calibrate``: the multiplier that turns the paper's λ into a model's own"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosparse.experiment.calibrated import CalibrationSpecification
from prosparse.method import probes
from prosparse.paper.markdown import markdown_table
from prosparse.published.factors import Reference, reference
from prosparse.published.tables import FIGURE3_FIT
from prosparse.system.errors import UserError
from prosparse.system.files import write_json, write_text


class Unusable(UserError):
    """The probes do not determine the multiplier; the message says which probes would."""


@dataclass(frozen=True)
class Probe:
    """A probe's λ, its sparsity at its end and that of a full run, in percent."""

    factor: float
    measured: float
    settled: float

    def ratio(self, to: Reference) -> float | None:
        """Return its λ over the paper's λ for the same sparsity."""
        paper = to.factor_of(self.settled)
        return None if paper is None else self.factor / paper


def write(specification: CalibrationSpecification, ledgers: Sequence[Path], output: Path) -> float:
    """Write what the probes found as JSON and, next to it, as Markdown; returns the multiplier.

    Raises:
        Unusable: no two neighboring probes enclose the sparsity of the paper's λ.
    """
    paper = reference(specification.scale)
    found = [_probe(specification, each, path) for each, path in zip(specification.probes, ledgers, strict=True)]
    wanted = paper.sparsity(paper.factor)
    curve = {probe.factor: probe.settled for probe in found}
    own = probes.factor_of(curve, wanted, exponent=FIGURE3_FIT[1])
    if own is None:
        advice = "larger" if max(curve.values()) < wanted else "smaller" if min(curve.values()) > wanted else "other"
        reached = ", ".join(f"{each.settled:.2f}% at λ = {each.factor:g}" for each in found)
        raise Unusable(
            f"the paper's {specification.scale} model reaches {wanted:.2f}% at λ = {paper.factor:g}; the probes would "
            f"reach {reached}: add a {advice} λ to calibration.{specification.scale}.probes"
        )
    multiplier = float(f"{own / paper.factor:.3g}")
    ratios = [ratio for probe in found if (ratio := probe.ratio(paper)) is not None]
    record: dict[str, Any] = {
        "scale": specification.scale,
        "multiplier": multiplier,
        "ratios": [min(ratios), max(ratios)],
        "reference": {"lambda": paper.factor, "sparsity": wanted},
        "probes": [
            {
                "lambda": probe.factor,
                "sparsity_at_its_end": probe.measured,
                "sparsity_of_a_full_run": probe.settled,
                "ratio": probe.ratio(paper),
            }
            for probe in found
        ],
        "specification": specification.model_dump(mode="json"),
    }
    text = _text(specification, paper, found, record)
    write_text(output.with_suffix(".md"), text)
    write_json(output, record)
    return multiplier


def _probe(specification: CalibrationSpecification, factor: float, path: Path) -> Probe:
    training, steps = specification.training, specification.steps
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(int(row["step"]), 100 * float(row["sparsity"])) for row in csv.DictReader(file)]
    times = [training.time(step) for step, _ in rows]
    sparsities = [sparsity for _, sparsity in rows]
    last = [sparsity for step, sparsity in rows if step > steps - max(1, steps // 10)]
    try:
        settled = probes.settled(times, sparsities, specification.full_time)
    except ValueError as error:
        raise Unusable(f"{path}: the probe at λ = {factor:g}: {error}") from None
    return Probe(factor, sum(last) / len(last), settled)


def _text(specification: CalibrationSpecification, paper: Reference, found: list[Probe], record: dict[str, Any]) -> str:
    rows = []
    for probe in found:
        equal, ratio = paper.factor_of(probe.settled), probe.ratio(paper)
        rows.append(
            [f"{probe.factor:g}", f"{probe.measured:.2f}", f"{probe.settled:.2f}"]
            + (["–", "–"] if equal is None or ratio is None else [f"{equal:.3g}", f"{ratio:.3g}"])
        )
    share = specification.training.time(specification.steps) / specification.full_time
    low, high = record["ratios"]
    lines = [
        f"# λ of the model for {specification.scale}: the paper's times {record['multiplier']:g}",
        "",
        *markdown_table(
            ["λ", "Sparsity at the probe's end (%)", "After a full run (%)", "Paper's λ for that sparsity", "Ratio"],
            rows,
            5,
        ),
        "",
        f"- At λ = {paper.factor:g}, the paper's model reaches {record['reference']['sparsity']:.2f}%. The multiplier "
        "is the λ at which this model reaches it, interpolated between two probes, over the paper's.",
        f"- The probes' ratios are {low:.3g} to {high:.3g}. They differ where the two models' curves differ in shape.",
        f"- After a full run: the probe's ledger, extrapolated to the end of a run at that λ after stage 0. A probe is "
        f"{100 * share:.0f}% of such a run (steps weighted by their learning rate).",
        "- The method and its errors: docs/method.md.",
    ]
    return "\n".join(lines) + "\n"
