"""Table 2, right half: times and speedups of the sparse FFN operators."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import operators
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.operators import STEPS
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.operator_cells import (
    SPARSITY,
    WHAT_STEPS_ARE,
    conditions,
    note_missing_scales,
    timed,
    times,
    unmeasured,
)
from prosparse.paper.tables.table import Column, Row, Table
from prosparse.published.settings import settings


def needs(experiment: Experiment) -> Needs:
    return Needs(operators=experiment.operators is not None)


def _columns() -> list[Column]:
    columns = [SPARSITY]
    for step in STEPS:
        columns += [
            Column(f"step{step}_time_us", f"Step ({step})", "µs", 1),
            Column(f"step{step}_speedup", f"Step ({step}) speedup", ""),
        ]
    for step in STEPS:
        columns += [
            Column(f"step{step}_over_torch", f"Step ({step}) over torch", ""),
            Column(f"step{step}_warm_us", f"Step ({step}) warm", "µs", 1),
        ]
    return columns


def build(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    table = Table(
        "table2_operators",
        "Table 2, right half. Times of the sparse FFN operators",
        _columns(),
        notes=[
            WHAT_STEPS_ARE,
            "Speedup: over the same step with every neuron active, in our own kernel (the paper: in its dense kernel). "
            "Over torch: over torch's dense matrix product. Both compare cold calls of the same round. The paper has "
            "no counterpart of the last four columns. Quartiles are in the CSV.",
            "`*`: without activation threshold shifting.",
        ],
    )
    for setting in settings():
        reason = operators.missing(experiment, setting.scale)
        if timings is None or reason is not None:
            table.rows.append(unmeasured(table.columns, setting, reason or ""))
            continue
        case, kind = timed(timings, setting)
        active = "every neuron" if setting.is_dense else "random patterns"
        pair = f"{case.hidden_size} × {case.intermediate_size}, {active}"
        table.rows.append(Row(setting.name, times(case, kind, setting.printed), pair))
    if timings is not None:
        table.notes += conditions(experiment, timings)
    note_missing_scales(table, experiment)
    return table
