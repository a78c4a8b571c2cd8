"""Table 2, right half: the least time that a GPU's memory bandwidth allows."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import operators
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.operators import STEPS, Timings
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.operator_cells import (
    SPARSITY,
    WHAT_STEPS_ARE,
    measured,
    note_missing_scales,
    timed,
    unmeasured,
)
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table
from prosparse.published.settings import Setting, settings


def needs(experiment: Experiment) -> Needs:
    return Needs(operators=experiment.operators is not None)


#: Peak memory bandwidth in bytes/s, from NVIDIA's data sheets (A100: 2,039 GB/s; H100: 3.35 TB/s).
PEAK_BANDWIDTHS = {"A100": ("A100 80 GB SXM", 2039e9), "H100": ("H100 80 GB SXM", 3350e9)}


def step_bytes(hidden_size: int, intermediate_size: int, density: float) -> int:
    """Return the bytes that a step must move in bfloat16: the active neurons' weights, and its input and output."""
    active = round(density * intermediate_size)
    return 2 * (active * hidden_size + hidden_size + intermediate_size)


def build(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    columns = [SPARSITY]
    for step in STEPS:
        columns.append(Column(f"step{step}_time_us", f"Step ({step})", "µs"))
        columns += [Column(f"step{step}_{key}", f"Step ({step}) bound, {key}", "µs") for key in PEAK_BANDWIDTHS]
        columns.append(Column(f"step{step}_share", f"Step ({step}) paper's share of the A100 bound (%)", "%", 0))
    named = "; ".join(f"{name}: {peak / 1e9:,.0f} GB/s" for name, peak in PEAK_BANDWIDTHS.values())
    table = Table(
        "table2_operators_gpu",
        "Table 2, right half. Lower bounds from a GPU's memory bandwidth",
        columns,
        notes=[
            "Bound: a model, not a measurement. It is the bytes that a step must move (the active neurons' weights, "
            "the input and the output, in bfloat16) over the peak memory bandwidth in NVIDIA's data sheets "
            f"({named}). No kernel reaches the peak. {WHAT_STEPS_ARE}",
            "Paper's share of the A100 bound: that bound over the paper's time, on whichever GPU it was measured.",
        ],
    )
    for setting in settings():
        reason = operators.missing(experiment, setting.scale)
        if timings is None or experiment.operators is None or reason is not None:
            table.rows.append(unmeasured(columns, setting, reason or ""))
            continue
        hidden, intermediate = experiment.operators.shapes[setting.scale]  # type: ignore[index]
        size = step_bytes(hidden, intermediate, setting.density)
        sparsity = setting.printed[SPARSITY.key]
        cells = {SPARSITY.key: Cell(Value((100 * (1 - setting.density),)), sparsity)}
        for step in STEPS:
            time = f"step{step}_time_us"
            cells[time] = _on_gpu(timings, setting, step)
            for key, (name, peak) in PEAK_BANDWIDTHS.items():
                cells[f"step{step}_{key}"] = Cell(Value((1e6 * size / peak,)), note=f"model: {size:,} bytes, {name}")
            least = 1e6 * size / PEAK_BANDWIDTHS["A100"][1]
            cells[f"step{step}_share"] = Cell(Value((100 * least / setting.microseconds(step),)), note="model")
        table.rows.append(Row(setting.name, cells, f"model, {hidden} × {intermediate}"))
    if timings is not None:
        table.note(
            f"Step (2) and step (3) of ours: {timings.machine}, cold."
            if timings.on_gpu
            else "Our operators have not been run on a GPU, so their times there are missing. Their times on a CPU "
            "are in the table *Times of the sparse FFN operators*."
        )
    note_missing_scales(table, experiment)
    return table


def _on_gpu(timings: Timings, setting: Setting, step: int) -> Cell:
    printed = setting.printed[f"step{step}_time_us"]
    if not timings.on_gpu:
        return Cell(published=printed, note=f"{MISSING}: ours have not been run on a GPU")
    case, kind = timed(timings, setting)
    return measured(case.microseconds(f"{kind}_{STEPS[step]}"), "cold", printed)
