"""Table 2: activation prediction, decoding speed and sparse operators."""

from __future__ import annotations

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import accelerated, operators
from prosparse.paper.results.accelerated import KINDS
from prosparse.paper.results.decoding import (
    MODES,
    Decoding,
    Model,
    every_decoding,
    synthetic_decoding,
    trained_decoding,
)
from prosparse.paper.results.labels import label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.operators import Timings
from prosparse.paper.results.origins import no_run
from prosparse.paper.results.prediction import read_prediction
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.acceleration_cells import (
    PREDICTED_SPARSITY,
    RECALL,
    WITHOUT_SHIFTING,
    missing_cell,
    note_conditions,
    note_missing,
    note_origins,
    note_predictor,
)
from prosparse.paper.tables.operator_cells import SPARSITY, measured, times
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table
from prosparse.published.settings import Setting, settings
from prosparse.published.tables import published_table

SPEED = Column("inference_speed_tokens_per_s", "Tokens/s", "")


SPEEDUP = Column("speedup_to_dense", "Speedup to dense", "")


EXACT_SPEED = Column("exact_tokens_per_s", "Exact: tokens/s", "")


EXACT_SPEEDUP = Column("exact_speedup_to_dense", "Exact: speedup to dense", "")


DECODED = [SPEED, SPEEDUP, EXACT_SPEED, EXACT_SPEEDUP]


STEPS = [
    Column("step2_time_us", "Step (2)", "µs", 1),
    Column("step2_speedup", "Step (2) speedup", ""),
    Column("step3_time_us", "Step (3)", "µs", 1),
    Column("step3_speedup", "Step (3) speedup", ""),
]


def build(results: Results) -> Table:
    experiment = results.experiment
    table = Table(
        "table2",
        "Table 2. Acceleration: prediction, decoding speed and operators",
        [SPARSITY, RECALL, PREDICTED_SPARSITY, *DECODED, *STEPS],
        notes=[
            "Tokens/s and speedup to dense: dense rows compute every neuron; the others compute only the neurons that "
            "are predicted to be active, which changes the output. Exact (ours only) computes the whole gate and then "
            "only its active neurons; the output is that of dense decoding. Ours compares like with like (one memory, "
            "one set of kernels); the paper's speedup does not: see *Why sparsity alone does not explain 4.52×*.",
            f"{WITHOUT_SHIFTING} {_printed_over_relullama()}",
        ],
    )
    pairs = table2_rows.decoded(experiment)
    decoding = trained_decoding(results)
    timings, trained = operators.read(results), operators.read_trained(results)
    gone: dict[str, list[str]] = {}
    for setting in settings():
        if setting.name not in pairs:
            reason = no_run(setting.name)
            gone.setdefault(reason, []).append(setting.name)
            cells = {c.key: missing_cell(reason, setting.printed.get(c.key, "")) for c in table.columns}
            table.rows.append(Row(setting.name, cells))
            continue
        cells = {
            **_predicted(results, setting, pairs[setting.name], gone),
            **_decoded(experiment, setting, decoding, gone),
            **_steps(setting, _case(trained, pairs, setting), gone, timings is None),
        }
        table.rows.append(Row(setting.name, cells, pairs[setting.name], model=label(experiment, pairs[setting.name])))
    _add_synthetic(table, results, timings)
    note_predictor(table, experiment)
    note_conditions(table, every_decoding(results))
    note_origins(table, results, pairs)
    if trained is not None:
        table.note(
            "Our steps (2) and (3): each model's own shape and activation patterns, relative to our kernel with every "
            f"neuron active; {trained.machine}. The paper's shapes are in *Times of the sparse FFN operators*."
        )
    note_missing(table, gone)
    return table


def _printed_over_relullama() -> str:
    rows = published_table("table2_early_baselines")
    printed = ", ".join(f"{row['setting']} {row['speedup_to_relullama']}" for row in rows)
    return f"For the early baselines, the paper prints the speedup over ReluLLaMA-7B instead: {printed}."


def _predicted(results: Results, setting: Setting, pair: str, gone: dict[str, list[str]]) -> dict[str, Cell]:
    """Return sparsity, recall and predicted sparsity; a dense row has none."""
    if setting.is_dense:
        return {}
    printed = setting.printed
    run, activation = results.experiment.pair(pair)
    cells = {SPARSITY.key: Cell(results.sparsity(run, activation).sparsity, printed[SPARSITY.key])}
    if setting.name not in table2_rows.predicted(results.experiment):
        reason = accelerated.missing_predictors(results.experiment) or f"{activation} has no zeros to predict"
        gone.setdefault(reason, []).append("activation recall and predicted sparsity")
        return {**cells, **{c.key: missing_cell(reason, printed[c.key]) for c in (RECALL, PREDICTED_SPARSITY)}}
    found = read_prediction(results, pair)
    kind = accelerated.kinds(results.experiment)[0]
    note = f"{KINDS[kind]}, decision threshold {found.decision_threshold:g}"
    first = found.kinds[kind]
    cells[RECALL.key] = Cell(first.recall, printed[RECALL.key], note)
    cells[PREDICTED_SPARSITY.key] = Cell(first.predicted_sparsity, printed[PREDICTED_SPARSITY.key], note)
    return cells


def _speeds(model: Model, is_dense: bool) -> dict[str, Cell]:
    """Return the decoding speed of a model: dense for a dense row, else predicted and exact."""
    cells = {}
    ways = (
        ((SPEED, SPEEDUP, "dense"),)
        if is_dense
        else ((SPEED, SPEEDUP, "predicted"), (EXACT_SPEED, EXACT_SPEEDUP, "exact"))
    )
    for speed, speedup, mode in ways:
        if mode not in model.modes:
            cells[speed.key] = cells[speedup.key] = missing_cell(f"not decoded in mode {mode}")
            continue
        arm = model.modes[mode]
        cells[speed.key] = measured(arm.tokens_per_second, MODES[mode])
        over = arm.speedup
        if mode == "dense":
            cells[speedup.key] = Cell(Value((1.0,)))
        elif over is not None:
            cells[speedup.key] = measured(over, f"{MODES[mode]} over {MODES['dense']}, prompt by prompt")
    return cells


def _decoded(
    experiment: Experiment, setting: Setting, decoding: Decoding | None, gone: dict[str, list[str]]
) -> dict[str, Cell]:
    shown = DECODED[:2] if setting.is_dense else DECODED
    printed = {column.key: setting.printed.get(column.key, "") for column in shown}
    if decoding is None:
        reason = accelerated.missing_decoding(experiment) or ""
        gone.setdefault(reason, []).append("tokens/s and speedup to dense")
        return {key: missing_cell(reason, text) for key, text in printed.items()}
    model = next(model for model in decoding.models if model.row == setting.name)
    cells = _speeds(model, setting.is_dense)
    for key, cell in cells.items():
        if cell.ours is None:
            gone.setdefault(cell.note.removeprefix(f"{MISSING}: "), []).append(setting.name)
        cells[key] = Cell(cell.ours, printed[key], cell.note)
    return cells


def _case(trained: Timings | None, pairs: dict[str, str], setting: Setting) -> operators.Case | None:
    """Return the operator times with a row's own patterns; a dense row takes those of its scale's first sparse row."""
    if trained is None:
        return None
    rows = [setting.name]
    if setting.is_dense:
        rows = [other.name for other in settings() if other.scale == setting.scale and not other.is_dense]
    for row in rows:
        if row in pairs:
            return trained.of_row(row)
    return None


def _steps(setting: Setting, case: operators.Case | None, gone: dict[str, list[str]], untimed: bool) -> dict[str, Cell]:
    printed = {column.key: setting.printed[column.key] for column in STEPS}
    if case is None:
        reason = "the experiment times no operators" if untimed else "no operator times at this model's shape"
        gone.setdefault(reason, []).append("steps (2) and (3)" if untimed else f"steps (2) and (3) of {setting.name}")
        return {key: missing_cell(reason, text) for key, text in printed.items()}
    found = times(case, "dense" if setting.is_dense else "sparse", setting.printed)
    return {key: found[key] for key in printed}


def _add_synthetic(table: Table, results: Results, timings: Timings | None) -> None:
    """Add rows of true shapes with synthetic weights."""
    for shape, decoding in synthetic_decoding(results).items():
        for model in decoding.models:
            setting = next((setting for setting in settings() if setting.name == model.row), None)
            is_dense = setting is not None and setting.is_dense
            cells = {}
            given = ((SPARSITY, "sparsity"), (RECALL, RECALL.key), (PREDICTED_SPARSITY, PREDICTED_SPARSITY.key))
            for column, key in given:
                if not is_dense and key in model.raw:
                    cells[column.key] = Cell(
                        Value((100 * model.raw[key],)), note="by construction of the synthetic model"
                    )
            cells |= _speeds(model, is_dense)
            cells |= _synthetic_steps(results.experiment, timings, model)
            table.rows.append(Row(model.label, cells, model.size, is_published=False))
            table.note(
                f"Synthetic {shape}: a model of that shape with random weights, constructed to have the sparsity, "
                "activation recall and predicted sparsity of the row that it is named after. It is for timing "
                "only: its text is meaningless, and its operators are timed with random patterns."
            )


def _synthetic_steps(experiment: Experiment, timings: Timings | None, model: Model) -> dict[str, Cell]:
    """Return the operator times at the model's shape and density, if measured."""
    shape = model.raw["architecture"]
    size = (shape["hidden_size"], shape["intermediate_size"])
    reason = "no operator times at this shape and density"
    for scale, timed in experiment.operators.shapes.items() if timings is not None and experiment.operators else ():
        if tuple(timed) == size and "sparsity" in model.raw:
            try:
                case = timings.at(scale, 1 - model.raw["sparsity"])  # type: ignore[union-attr]
            except MissingResult:
                break
            found = times(case, "sparse", {})
            return {column.key: found[column.key] for column in STEPS}
    return {column.key: missing_cell(reason) for column in STEPS}


def needs(experiment: Experiment) -> Needs:
    sparse = [pair for row, pair in table2_rows.decoded(experiment).items() if not row.startswith("Dense")]
    return (
        Needs(
            sparsity=Needs.of_pairs(experiment, sparse).sparsity,
            operators=experiment.operators is not None,
            trained_operators=operators.times_trained(experiment),
        )
        | accelerated.prediction_needs(experiment)
        | accelerated.decoding_needs(experiment)
    )
