"""Table 2, right half: times and speedups of the sparse FFN operators."""

from __future__ import annotations

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import operators
from prosparse.paper.results.labels import label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.operators import STEPS, Timings
from prosparse.paper.results.origins import stands_in
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
        _add_trained(table, experiment, timings)
    note_missing_scales(table, experiment)
    return table


def _add_trained(table: Table, experiment: Experiment, timings: Timings) -> None:
    """Add rows of our trained models at their own shapes."""
    origins: dict[str, list[str]] = {}
    for row, pair in table2_rows.trained(experiment).items():
        case = timings.of_row(row)
        title = f"Ours for {row}, {case.hidden_size} × {case.intermediate_size}"
        model = label(experiment, pair)
        table.rows.append(Row(title, times(case, "sparse", {}), pair, is_published=False, model=model))
        origins.setdefault(stands_in(experiment, row, experiment.pair(pair)[0]), []).append(model)
    for words, pairs in origins.items():
        table.note(
            f"Rows named *Ours for*: {words}, with its own shape and its own activation patterns on held-out tokens "
            f"({', '.join(dict.fromkeys(pairs))}). Its weights are far smaller than the paper's, so the fixed cost of "
            "a call matters more."
        )
