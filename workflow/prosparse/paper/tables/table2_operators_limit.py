"""Table 2, right half: how close the operators come to the memory's bandwidth."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import operators
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.operator_cells import WHAT_STEPS_ARE, conditions, measured, note_missing_scales
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table


def needs(experiment: Experiment) -> Needs:
    return Needs(operators=experiment.operators is not None)


#: Column -> the arm whose bytes/s it shows.
LIMITED = {
    "step2": ("Step (2)", "sparse_up"),
    "step3": ("Step (3)", "sparse_down"),
    "fused": ("Both in one", "sparse_ffn"),
    "side_by_side": ("Both in one, rows side by side", "sparse_ffn_side_by_side"),
    "rows": ("A read of the active rows", "rows"),
}


def build(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    columns = [Column("bandwidth", "Sequential read", "GB/s", 1)]
    columns += [Column(key, f"{label} (%)", "%", 0) for key, (label, _) in LIMITED.items()]
    table = Table(
        "table2_operators_limit",
        "Table 2, right half. How close the operators come to the memory bandwidth",
        columns,
        row_title="Scale and density",
        notes=[
            "In percent: weights read per second, relative to a call that only reads as many weights sequentially; "
            "same round, cold. The last column only reads the operators' active rows: it shows the cost of jumping "
            "from row to row. All calls include the fixed cost of a call, and the plain reads do not prefetch; where "
            "little is read, even a sequential read is far below the memory bandwidth.",
            f"{WHAT_STEPS_ARE} Rows side by side: a neuron's row of W_1 and row of W_2 transposed are adjacent in "
            "memory, which halves the number of jumps.",
        ],
    )
    for scale in experiment.operators.shapes if timings is not None and experiment.operators is not None else []:
        for case in timings.of_scale(scale):  # type: ignore[union-attr]
            cells = {"bandwidth": Cell(Value((case.bandwidth("stream") / 1e9,)))}
            for key, (_, arm) in LIMITED.items():
                found = case.measured(arm)
                cells[key] = measured(case.share(arm), "cold", scale=100) if found else Cell(note=MISSING)
            pair = f"{case.hidden_size} × {case.intermediate_size}"
            table.rows.append(Row(f"{scale}, {case.density:.1%}", cells, pair, is_published=False))
    if timings is not None:
        table.notes += conditions(experiment, timings)
    note_missing_scales(table, experiment)
    return table
