"""Table 2, right half: an operator's time as a constant plus a slope over density."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import operators
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.operator_lines import Line, measured_line, published_line
from prosparse.paper.results.operators import STEPS
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.operator_cells import WHAT_STEPS_ARE, conditions, note_missing_scales
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table
from prosparse.published.settings import settings


def needs(experiment: Experiment) -> Needs:
    return Needs(operators=experiment.operators is not None)


def build(results: Results) -> Table:
    experiment, timings = results.experiment, operators.read(results)
    at = next(setting.density for setting in settings() if setting.name == "ProSparse-7B")
    table = Table(
        "table2_operators_fit",
        "Table 2, right half. A step's time as a fixed part plus a part that grows with density",
        [
            Column("fixed_us", "Fixed", "µs", 1),
            Column("slope_us", "Slope", "µs at density 1", 1),
            Column("fixed_share", f"Fixed, share at density {at:.1%} (%)", "%", 1),
            Column("points", "Densities", "", 0),
        ],
        row_title="Scale and step",
        notes=[
            "time = fixed + slope × density, by least squares over the densities up to that of the paper's densest "
            "sparse row; ± is the standard error of the fit. The paper prints no such line: we computed its numbers "
            "here from its rows of Table 2.",
            "If the fixed share is large, more sparsity gains little. Warm times do not follow a line where the "
            "weights of sparse calls fit in the cache and those of dense calls do not. " + WHAT_STEPS_ARE,
        ],
    )
    papers = dict.fromkeys(setting.scale for setting in settings())
    for scale in dict.fromkeys([*papers, *(experiment.operators.shapes if experiment.operators else [])]):
        reason = operators.missing(experiment, scale)
        for step in STEPS:
            label = f"{scale}, step ({step})"
            published = published_line(scale, step) if scale in papers else None
            if timings is None or reason is not None:
                table.rows.append(Row(label, _line_cells(None, published, at, f"{MISSING}: {reason}")))
                continue
            for protocol in ("cold", "warm"):
                line = measured_line(timings.of_scale(scale), step, protocol)
                note = protocol if line is not None else f"{MISSING}: fewer than two such densities"
                printed = published if protocol == "cold" else None
                cells = _line_cells(line, printed, at, note)
                table.rows.append(Row(label, cells, protocol, is_published=printed is not None))
    if timings is not None:
        table.notes += conditions(experiment, timings)
    note_missing_scales(table, experiment)
    return table


def _line_cells(ours: Line | None, papers: Line | None, at: float, note: str) -> dict[str, Cell]:
    """Return the cells of a row; ``at`` is the density at which to take the fixed part's share."""

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
