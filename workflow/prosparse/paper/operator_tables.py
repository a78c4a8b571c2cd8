"""Table 2's right half: times of the sparse FFN operators beside the paper's, and two models of them."""

from __future__ import annotations

from prosparse.config import Experiment
from prosparse.paper import operators
from prosparse.paper.operators import (
    PEAK_BANDWIDTHS,
    STEPS,
    Case,
    Line,
    Setting,
    Spread,
    Timings,
    settings,
)
from prosparse.paper.origins import stands_in
from prosparse.paper.results import Results, Value
from prosparse.paper.table import MISSING, Cell, Column, Row, Table

SPARSITY = Column("average_sparsity", "Sparsity (%)", "%")

WHAT_STEPS_ARE = "Step (2) is the up projection of the active neurons, step (3) the down projection, for one token."


def measured(spread: Spread, what: str, published: str = "", scale: float = 1.0) -> Cell:
    """The median, with the quartiles in the note."""
    quartiles = f"quartiles {scale * spread.lower:.4g} to {scale * spread.upper:.4g}"
    return Cell(Value((scale * spread.median,)), published, f"{what}; {quartiles}")


def _unmeasured(columns: list[Column], setting: Setting, reason: str) -> Row:
    note = f"{MISSING}: {reason}"
    return Row(
        setting.name,
        {column.key: Cell(published=setting.printed.get(column.key, ""), note=note) for column in columns},
    )


def _note_missing(table: Table, experiment: Experiment) -> None:
    reasons: dict[str, list[str]] = {}
    for scale in dict.fromkeys(setting.scale for setting in settings()):
        reason = operators.missing(experiment, scale)
        if reason is not None:
            reasons.setdefault(reason, []).append(scale)
    for reason, scales in reasons.items():
        table.note(f"Missing: {', '.join(scales)}: {reason}.")


def _conditions(experiment: Experiment, timings: Timings) -> list[str]:
    """What ours was measured on, and under which protocols."""
    assert experiment.operators is not None
    shapes = [f"{scale} {hidden} × {size}" for scale, (hidden, size) in experiment.operators.shapes.items()]
    notes = [
        f"Ours: {timings.machine}, {timings.dtype} weights. Cold: medians of {timings.rounds} rounds, where every call "
        f"has other weights out of {timings.memory_bytes / 2**30:.1f} GiB, which the last-level cache "
        f"({timings.cache_bytes / 2**20:.0f} MiB) no longer holds, as in decoding, where the other layers come "
        "between. Warm: the authors' protocol, medians of 100 calls on the same weights after 10 to warm up, one "
        "operator after the other; so a change of the machine's speed meets them unequally."
        + (" Large memory pages were asked for." if timings.large_pages else ""),
        f"Ours has random weights of these shapes ({', '.join(shapes)}) and random activation patterns: no trained "
        "weights of these sizes are involved, and the time does not depend on the values.",
    ]
    if not timings.on_gpu:
        notes.append("The paper's times are a GPU's and ours a CPU's: compare speedups, not times.")
    return notes


# ----------------------------------------------------------------------------------- the times


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


def _timed(timings: Timings, setting: Setting) -> tuple[Case, str]:
    """What stands for a row, and the kind of its arms: the densest case has the dense rows."""
    if setting.is_dense:
        return timings.of_scale(setting.scale)[0], "dense"
    return timings.at(setting.scale, setting.density), "sparse"


def times(case: Case, kind: str, printed: dict[str, str]) -> dict[str, Cell]:
    """Cells of the arms ``{kind}_up`` and ``{kind}_down``."""
    sparsity = Cell(
        Value((100 * (1 - case.density),)), printed.get(SPARSITY.key, ""), "of the patterns that ours is timed with"
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


def table2_operators(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    table = Table(
        "table2_operators",
        "Table 2, right half. Times of the sparse FFN operators",
        _columns(),
        notes=[
            WHAT_STEPS_ARE,
            "Speedup: over the same step with every neuron active, in our own kernel (the paper: its dense kernel). "
            "Over torch: over torch's dense product. Both compare calls of the same round, cold. The last four columns "
            "are ours alone; quartiles are in the CSV.",
            "`*`: without activation threshold shifting.",
        ],
    )
    for setting in settings():
        reason = operators.missing(experiment, setting.scale)
        if timings is None or reason is not None:
            table.rows.append(_unmeasured(table.columns, setting, reason or ""))
            continue
        case, kind = _timed(timings, setting)
        active = "every neuron" if setting.is_dense else "random patterns"
        pair = f"{case.hidden_size} × {case.intermediate_size}, {active}"
        table.rows.append(Row(setting.name, times(case, kind, setting.printed), pair))
    if timings is not None:
        table.notes += _conditions(experiment, timings)
        _add_trained(table, experiment, timings)
    _note_missing(table, experiment)
    return table


def _add_trained(table: Table, experiment: Experiment, timings: Timings) -> None:
    """Rows of our trained models, at their own shapes."""
    origins: dict[str, list[str]] = {}
    for row, pair in operators.trained(experiment).items():
        case = timings.of_row(row)
        label = f"Ours for {row}, {case.hidden_size} × {case.intermediate_size}"
        table.rows.append(Row(label, times(case, "sparse", {}), pair, is_published=False))
        origins.setdefault(stands_in(experiment, row, experiment.pair(pair)[0]), []).append(f"`{pair}`")
    for words, pairs in origins.items():
        table.note(
            f"Rows named *Ours for*: {words}, with its own shape and its own activation patterns on held-out tokens "
            f"({', '.join(dict.fromkeys(pairs))}). Its weights are far smaller than the paper's, so what a call costs "
            "whatever it computes weighs more."
        )


# -------------------------------------------------------------------------- the memory's limit

#: Column -> the arm whose bytes/s it shows.
LIMITED = {
    "step2": ("Step (2)", "sparse_up"),
    "step3": ("Step (3)", "sparse_down"),
    "fused": ("Both in one", "sparse_ffn"),
    "side_by_side": ("Both in one, rows side by side", "sparse_ffn_side_by_side"),
    "rows": ("A read of the active rows", "rows"),
}


def table2_operators_limit(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    columns = [Column("bandwidth", "Sequential read", "GB/s", 1)]
    columns += [Column(key, f"{label} (%)", "%", 0) for key, (label, _) in LIMITED.items()]
    table = Table(
        "table2_operators_limit",
        "Table 2, right half. How near the operators come to the memory's limit",
        columns,
        row_title="Scale and density",
        notes=[
            "In percent: weights read a second as a share of those of a call that reads as many in a row and does "
            "nothing else, in the same round, cold. The last column reads the same active rows as the operators and "
            "does nothing else: what jumping from row to row costs. All calls include the fixed cost of a call, and "
            "the plain reads do without prefetching; where little is read, a sequential read too is far from the "
            "memory's own rate.",
            f"{WHAT_STEPS_ARE} Rows side by side: a neuron's row of W_1 and row of W_2 transposed next to each other, "
            "so that there are half as many jumps.",
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
        table.notes += _conditions(experiment, timings)
    _note_missing(table, experiment)
    return table


# ------------------------------------------------------------------------- fixed part and slope


def _line_cells(ours: Line | None, papers: Line | None, at: float, note: str) -> dict[str, Cell]:
    """Cells of a row; ``at`` is the density at which the fixed part's share is taken."""

    def numbers(line: Line | None) -> dict[str, Value | None]:
        if line is None:
            return dict.fromkeys(("fixed_us", "slope_us", "fixed_share", "points"))
        return {
            "fixed_us": Value((line.fixed,), () if line.fixed_error is None else (line.fixed_error,)),
            "slope_us": Value((line.slope,), () if line.slope_error is None else (line.slope_error,)),
            "fixed_share": Value((100 * line.fixed / line.at(at),)),
            "points": Value((float(line.points),)),
        }

    def text(value: Value | None, digits: int) -> str:
        if value is None:
            return ""
        error = "" if value.standard_error is None else f" ± {value.standard_error:.{digits}f}"
        return f"{value.mean:.{digits}f}{error}"

    printed = numbers(papers)
    return {
        key: Cell(value, text(printed[key], 0 if key == "points" else 1), note) for key, value in numbers(ours).items()
    }


def table2_operators_fit(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    at = next(setting.density for setting in settings() if setting.name == "ProSparse-7B")
    table = Table(
        "table2_operators_fit",
        "Table 2, right half. A step's time as a fixed part and one that grows with density",
        [
            Column("fixed_us", "Fixed", "µs", 1),
            Column("slope_us", "Slope", "µs at density 1", 1),
            Column("fixed_share", f"Fixed, share at density {at:.1%} (%)", "%", 1),
            Column("points", "Densities", "", 0),
        ],
        row_title="Scale and step",
        notes=[
            "time = fixed + slope × density, least squares over the densities up to the paper's densest sparse row; ± "
            "is the fit's standard error. The paper prints no such line: its numbers here are computed by us from its "
            "rows of Table 2.",
            "A large fixed share means that more sparsity gains little. Warm times are no line where "
            "the sparser calls' weights fit in the cache and the denser ones' do not. " + WHAT_STEPS_ARE,
        ],
    )
    papers = dict.fromkeys(setting.scale for setting in settings())
    for scale in dict.fromkeys([*papers, *(experiment.operators.shapes if experiment.operators else [])]):
        reason = operators.missing(experiment, scale)
        for step in STEPS:
            label = f"{scale}, step ({step})"
            published = operators.published_line(scale, step) if scale in papers else None
            if timings is None or reason is not None:
                table.rows.append(Row(label, _line_cells(None, published, at, f"{MISSING}: {reason}")))
                continue
            for protocol in ("cold", "warm"):
                line = operators.measured_line(timings.of_scale(scale), step, protocol)
                note = protocol if line is not None else f"{MISSING}: fewer than two such densities"
                beside = published if protocol == "cold" else None
                cells = _line_cells(line, beside, at, note)
                table.rows.append(Row(label, cells, protocol, is_published=beside is not None))
    if timings is not None:
        table.notes += _conditions(experiment, timings)
    _note_missing(table, experiment)
    return table


# ----------------------------------------------------------------------------- what a GPU could


def table2_operators_gpu(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    columns = [SPARSITY]
    for step in STEPS:
        columns.append(Column(f"step{step}_time_us", f"Step ({step})", "µs"))
        columns += [Column(f"step{step}_{key}", f"Step ({step}) least, {key}", "µs") for key in PEAK_BANDWIDTHS]
        columns.append(Column(f"step{step}_share", f"Step ({step}) paper's share of A100's limit (%)", "%", 0))
    named = "; ".join(f"{name}: {peak / 1e9:,.0f} GB/s" for name, peak in PEAK_BANDWIDTHS.values())
    table = Table(
        "table2_operators_gpu",
        "Table 2, right half. The least time that a GPU's memory allows",
        columns,
        notes=[
            "Least: a model, not a measurement: the bytes that a step must move (the active neurons' weights and the "
            "vectors in and out, bfloat16) over the peak memory bandwidth of NVIDIA's data sheets "
            f"({named}). No kernel reaches the peak. {WHAT_STEPS_ARE}",
            "Paper's share of A100's limit: the least time there over the paper's time, whatever GPU it was taken on.",
        ],
    )
    for setting in settings():
        reason = operators.missing(experiment, setting.scale)
        if timings is None or experiment.operators is None or reason is not None:
            table.rows.append(_unmeasured(columns, setting, reason or ""))
            continue
        hidden, intermediate = experiment.operators.shapes[setting.scale]  # type: ignore[index]
        size = operators.step_bytes(hidden, intermediate, setting.density)
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
            else "No GPU has run our operators, so their times on one are missing; those of a CPU are in the table "
            "*Times of the sparse FFN operators*."
        )
    _note_missing(table, experiment)
    return table


def _on_gpu(timings: Timings, setting: Setting, step: int) -> Cell:
    printed = setting.printed[f"step{step}_time_us"]
    if not timings.on_gpu:
        return Cell(published=printed, note=f"{MISSING}: no GPU has run ours")
    case, kind = _timed(timings, setting)
    return measured(case.microseconds(f"{kind}_{STEPS[step]}"), "cold", printed)
