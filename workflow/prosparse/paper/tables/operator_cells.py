"""Columns, cells and notes shared by the operator tables."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import operators
from prosparse.paper.results.operators import STEPS, Case, Timings
from prosparse.paper.results.quartiles import Quartiles
from prosparse.paper.results.value import Value
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table
from prosparse.published.settings import Setting, settings

SPARSITY = Column("average_sparsity", "Sparsity (%)", "%")


WHAT_STEPS_ARE = "Step (2) is the up projection of the active neurons, step (3) the down projection, for one token."


def measured(spread: Quartiles, what: str, published: str = "", scale: float = 1.0) -> Cell:
    """Show the median, with the quartiles in the note."""
    quartiles = f"quartiles {scale * spread.lower:.4g} to {scale * spread.upper:.4g}"
    return Cell(Value((scale * spread.median,)), published, f"{what}; {quartiles}")


def unmeasured(columns: list[Column], setting: Setting, reason: str) -> Row:
    note = f"{MISSING}: {reason}"
    return Row(
        setting.name,
        {column.key: Cell(published=setting.printed.get(column.key, ""), note=note) for column in columns},
    )


def note_missing_scales(table: Table, experiment: Experiment) -> None:
    reasons: dict[str, list[str]] = {}
    for scale in dict.fromkeys(setting.scale for setting in settings()):
        reason = operators.missing(experiment, scale)
        if reason is not None:
            reasons.setdefault(reason, []).append(scale)
    for reason, scales in reasons.items():
        table.note(f"Missing: {', '.join(scales)}: {reason}.")


def conditions(experiment: Experiment, timings: Timings) -> list[str]:
    """Describe the machine and the protocols of our measurements."""
    assert experiment.operators is not None
    shapes = [f"{scale} {hidden} × {size}" for scale, (hidden, size) in experiment.operators.shapes.items()]
    notes = [
        f"Ours: {timings.machine}, {timings.dtype} weights. Cold: medians of {timings.rounds} rounds in which every "
        f"call uses different weights out of {timings.memory_bytes / 2**30:.1f} GiB, so that none are in the "
        f"last-level cache ({timings.cache_bytes / 2**20:.0f} MiB), as in decoding, where other layers run in "
        "between. Warm: the authors' protocol, medians of 100 calls on the same weights after 10 warm-up calls, one "
        "operator after another, so that drift in the machine's speed affects them unequally."
        + (" Large memory pages were requested." if timings.large_pages else ""),
        f"Ours uses random weights of these shapes ({', '.join(shapes)}) and random activation patterns. No trained "
        "weights of these sizes are involved; the time does not depend on their values.",
    ]
    if not timings.on_gpu:
        notes.append("The paper timed a GPU and we a CPU: compare speedups, not times.")
    return notes


def timed(timings: Timings, setting: Setting) -> tuple[Case, str]:
    """Return the case that stands for a row and the kind of its arms; dense rows use the densest case."""
    if setting.is_dense:
        return timings.of_scale(setting.scale)[0], "dense"
    return timings.at(setting.scale, setting.density), "sparse"


def times(case: Case, kind: str, printed: dict[str, str]) -> dict[str, Cell]:
    """Return the cells of the arms ``{kind}_up`` and ``{kind}_down``."""
    sparsity = Cell(
        Value((100 * (1 - case.density),)), printed.get(SPARSITY.key, ""), "of the patterns that ours was timed with"
    )
    cells = {SPARSITY.key: sparsity}
    for step, ending in STEPS.items():
        arm, name = f"{kind}_{ending}", f"step{step}"
        time, speedup = f"{name}_time_us", f"{name}_speedup"
        cells[time] = measured(case.microseconds(arm), "cold", printed.get(time, ""))
        over_dense = case.speedup(arm, f"dense_{ending}")
        cells[speedup] = measured(
            over_dense, "cold, over our kernel with every neuron active", printed.get(speedup, "")
        )
        cells[f"{name}_over_torch"] = measured(case.speedup(arm, f"torch_{ending}"), "cold, over torch's dense product")
        cells[f"{name}_warm_us"] = measured(case.microseconds(arm, "warm"), "warm")
    return cells
