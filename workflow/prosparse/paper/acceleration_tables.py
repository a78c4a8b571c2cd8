"""Table 2's left half beside the paper's: prediction and decoding speed, with what lies behind each."""

from __future__ import annotations

from collections.abc import Callable

from prosparse.config import Experiment
from prosparse.paper import acceleration, operators, published
from prosparse.paper.acceleration import ENGINES, KINDS, MARGINAL, MODES, Arm, Decoding, Model
from prosparse.paper.operator_tables import SPARSITY, measured, times
from prosparse.paper.operators import Setting, Timings, settings
from prosparse.paper.origins import no_run, stands_in
from prosparse.paper.results import BenchmarkColumn, MissingResult, Needs, Results, Value
from prosparse.paper.table import MISSING, Cell, Column, Row, Table

RECALL = Column("activation_recall", "Activation recall (%)", "%")
PREDICTED_SPARSITY = Column("predicted_sparsity", "Predicted sparsity (%)", "%")

WITHOUT_SHIFTING = "`*`: without activation threshold shifting."


def _missing(reason: str, printed: str = "") -> Cell:
    return Cell(published=printed, note=f"{MISSING}: {reason}")


def _note_origins(table: Table, results: Results, pairs: dict[str, str]) -> None:
    """What ours is, where a run stands for a row."""
    origins: dict[str, list[str]] = {}
    for row, pair in pairs.items():
        origins.setdefault(stands_in(results.experiment, row, results.experiment.pair(pair)[0]), []).append(pair)
    for words, found in origins.items():
        names = "; ".join(f"`{pair}`" for pair in dict.fromkeys(found))
        table.note(f"Ours is {'a ' if words.startswith('stand-in') else ''}{words} ({names}).")


def _note_missing(table: Table, what: dict[str, list[str]]) -> None:
    """``what``: reason -> what is missing for it."""
    for reason, names in what.items():
        table.note(f"Missing: {'; '.join(dict.fromkeys(names))}: {reason}.")


# ------------------------------------------------------------------------------------- Table 2

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


def table2(results: Results) -> Table:
    experiment = results.experiment
    table = Table(
        "table2",
        "Table 2. Acceleration: prediction, decoding speed and operators",
        [SPARSITY, RECALL, PREDICTED_SPARSITY, *DECODED, *STEPS],
        notes=[
            "Tokens/s and speedup to dense: of a dense row, decoding with every neuron; of the others, decoding the "
            "neurons that a predictor calls active, which changes the output. Exact: the whole gate first, then its "
            "active neurons alone; ours only, the same output as dense. Ours has one memory and one set of kernels "
            "for all; the paper's speedup compares two, see *Why 4.52 times is not what sparsity alone gives*.",
            f"{WITHOUT_SHIFTING} {_printed_over_relullama()}",
        ],
    )
    pairs = acceleration.pairs(experiment)
    decoding, timings = acceleration.trained(results), operators.read(results)
    gone: dict[str, list[str]] = {}
    for setting in settings():
        if setting.name not in pairs:
            reason = no_run(setting.name)
            gone.setdefault(reason, []).append(setting.name)
            cells = {c.key: _missing(reason, setting.printed.get(c.key, "")) for c in table.columns}
            table.rows.append(Row(setting.name, cells))
            continue
        cells = {
            **_predicted(results, setting, pairs[setting.name], gone),
            **_decoded(experiment, setting, decoding, gone),
            **_steps(setting, _case(timings, pairs, setting), gone, timings is None),
        }
        table.rows.append(Row(setting.name, cells, pairs[setting.name]))
    _add_synthetic(table, results, timings)
    _note_predictor(table, experiment)
    _note_conditions(table, results)
    _note_origins(table, results, pairs)
    if pairs and timings is not None:
        table.note(
            "Steps (2) and (3) of ours: each model's own shape and activation patterns, over our kernel with every "
            f"neuron active; {timings.machine}. The paper's shapes are in *Times of the sparse FFN operators*."
        )
    _note_missing(table, gone)
    return table


def _printed_over_relullama() -> str:
    rows = published.rows("table2_early_baselines")
    printed = ", ".join(f"{row['setting']} {row['speedup_to_relullama']}" for row in rows)
    return f"The paper prints the early baselines' speedup over ReluLLaMA-7B instead: {printed}."


def _predicted(results: Results, setting: Setting, pair: str, gone: dict[str, list[str]]) -> dict[str, Cell]:
    """Sparsity, recall and predicted sparsity; a dense row has none."""
    if setting.is_dense:
        return {}
    printed = setting.printed
    run, activation = results.experiment.pair(pair)
    cells = {SPARSITY.key: Cell(results.sparsity(run, activation).sparsity, printed[SPARSITY.key])}
    if setting.name not in acceleration.predicted_pairs(results.experiment):
        reason = acceleration.missing_predictors(results.experiment) or f"{activation} has no zeros to predict"
        gone.setdefault(reason, []).append("activation recall and predicted sparsity")
        return {**cells, **{c.key: _missing(reason, printed[c.key]) for c in (RECALL, PREDICTED_SPARSITY)}}
    found = acceleration.prediction(results, pair)
    kind = acceleration.kinds(results.experiment)[0]
    note = f"{KINDS[kind]}, decision threshold {found.decision_threshold:g}"
    first = found.kinds[kind]
    cells[RECALL.key] = Cell(first.recall, printed[RECALL.key], note)
    cells[PREDICTED_SPARSITY.key] = Cell(first.predicted_sparsity, printed[PREDICTED_SPARSITY.key], note)
    return cells


def _speeds(model: Model, is_dense: bool) -> dict[str, Cell]:
    """Decoding speed of a model: dense for a dense row, else predicted and exact."""
    cells = {}
    ways = (
        ((SPEED, SPEEDUP, "dense"),)
        if is_dense
        else ((SPEED, SPEEDUP, "predicted"), (EXACT_SPEED, EXACT_SPEEDUP, "exact"))
    )
    for speed, speedup, mode in ways:
        if mode not in model.modes:
            cells[speed.key] = cells[speedup.key] = _missing(f"not decoded in mode {mode}")
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
        reason = acceleration.missing_decoding(experiment) or ""
        gone.setdefault(reason, []).append("tokens/s and speedup to dense")
        return {key: _missing(reason, text) for key, text in printed.items()}
    model = next(model for model in decoding.models if model.row == setting.name)
    cells = _speeds(model, setting.is_dense)
    for key, cell in cells.items():
        if cell.ours is None:
            gone.setdefault(cell.note.removeprefix(f"{MISSING}: "), []).append(setting.name)
        cells[key] = Cell(cell.ours, printed[key], cell.note)
    return cells


def _case(timings: Timings | None, pairs: dict[str, str], setting: Setting) -> operators.Case | None:
    """The operator times with a row's own patterns; a dense row has those of its scale's first sparse one."""
    if timings is None:
        return None
    rows = [setting.name]
    if setting.is_dense:
        rows = [other.name for other in settings() if other.scale == setting.scale and not other.is_dense]
    for row in rows:
        if row in pairs:
            return timings.of_row(row)
    return None


def _steps(setting: Setting, case: operators.Case | None, gone: dict[str, list[str]], untimed: bool) -> dict[str, Cell]:
    printed = {column.key: setting.printed[column.key] for column in STEPS}
    if case is None:
        reason = "the experiment times no operators" if untimed else "no operator times at this model's shape"
        gone.setdefault(reason, []).append("steps (2) and (3)" if untimed else f"steps (2) and (3) of {setting.name}")
        return {key: _missing(reason, text) for key, text in printed.items()}
    found = times(case, "dense" if setting.is_dense else "sparse", setting.printed)
    return {key: found[key] for key in printed}


def _add_synthetic(table: Table, results: Results, timings: Timings | None) -> None:
    """Rows of true shapes with synthetic weights."""
    for shape, decoding in acceleration.synthetic(results).items():
        for model in decoding.models:
            setting = next((setting for setting in settings() if setting.name == model.row), None)
            is_dense = setting is not None and setting.is_dense
            cells = {}
            given = ((SPARSITY, "sparsity"), (RECALL, RECALL.key), (PREDICTED_SPARSITY, PREDICTED_SPARSITY.key))
            for column, key in given:
                if not is_dense and key in model.raw:
                    cells[column.key] = Cell(Value((100 * model.raw[key],)), note="given to the synthetic model")
            cells |= _speeds(model, is_dense)
            cells |= _synthetic_steps(results.experiment, timings, model)
            table.rows.append(Row(model.label, cells, model.size, is_published=False))
            table.note(
                f"Synthetic {shape}: a model of that shape with random weights that are given the sparsity, activation "
                "recall and predicted sparsity of the row that it is named after. It times, it cannot write; its "
                "operators are timed with random patterns."
            )


def _synthetic_steps(experiment: Experiment, timings: Timings | None, model: Model) -> dict[str, Cell]:
    """Operator times at the model's shape and density, where they were taken."""
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
    return {column.key: _missing(reason) for column in STEPS}


def _note_predictor(table: Table, experiment: Experiment) -> None:
    chosen = experiment.predictors
    if chosen is None:
        return
    rules = {
        "nonzero": "trained, a neuron is labelled active where x1 is not 0",
        "top": f"trained, a neuron is labelled active where |x1| is among the largest {chosen.top:.0%} of its token",
        "svd": "the gate's singular vectors, not trained",
    }
    table.note(
        f"Predictor of ours: {rules[chosen.kinds[0]]}; rank {chosen.rank}, decision threshold "
        f"{chosen.decision_threshold:g}. The paper does not say which labels it used for which row. Other kinds are in "
        "*Predictors of active neurons*."
    )


def _note_conditions(table: Table, results: Results) -> None:
    """How ours was decoded."""
    decoding = acceleration.trained(results)
    if decoding is not None:
        table.note(
            f"Ours, trained models: {decoding.conditions}. Medians over prompts. What a token costs whatever it reads "
            "weighs more in a smaller model: compare no tokens/s across sizes."
        )
    for shape, found in acceleration.synthetic(results).items():
        table.note(f"Ours, synthetic {shape}: {found.conditions}. Medians over prompts.")


def _table2_needs(experiment: Experiment) -> Needs:
    sparse = [pair for row, pair in acceleration.pairs(experiment).items() if not row.startswith("Dense")]
    return (
        Needs(sparsity=Needs.of_pairs(experiment, sparse).sparsity, operators=experiment.operators is not None)
        | acceleration.prediction_needs(experiment)
        | acceleration.decoding_needs(experiment)
    )


# ------------------------------------------------------------------------------------ decoding


def table2_decoding(results: Results) -> Table:
    table = Table(
        "table2_decoding",
        "Table 2, left half. Decoding speed of every model, in every way",
        [
            Column("tokens_per_second", "Tokens/s", ""),
            Column("milliseconds", "A token", "ms"),
            Column("first_token", "First token", "ms", 1),
            Column("over_dense", "Times ours, dense", ""),
            Column("over_torch", "Times transformers", ""),
            Column("megabytes", "Read a token", "MB", 1),
            Column("bound_tokens_per_second", "Bound, tokens/s", ""),
            Column("share_of_bound", "Share of bound (%)", "%", 0),
            Column("overhead", "Outside the weights", "ms"),
            Column("same_tokens", "Same tokens as dense (%)", "%", 1),
        ],
        row_title="Model and way",
        notes=[
            "Ours, dense: our kernels, every neuron. Ours, exact: the whole gate first, then its active neurons alone. "
            "Ours, predicted: the neurons that a predictor calls active. Transformers: the model as the library has "
            "it, torch's products. All decode the same prompts with the same weights.",
            "Bound: the bytes that a token must read, over the rate at which the same run's memory is read in a row. "
            "Share of bound: how near the measured time comes. Outside the weights: time a token that is spent outside "
            "the operators that read weights. Weights that stay in the processor's cache can exceed the bound.",
            "Times ours, dense: compared prompt by prompt (engines: the ratio of medians). Same tokens: greedy tokens "
            "equal to dense decoding's.",
            WITHOUT_SHIFTING,
        ],
    )
    gone: dict[str, list[str]] = {}
    for decoding in acceleration.every_decoding(results):
        for model in decoding.models:
            for name, arm in model.modes.items():
                table.rows.append(_way(model, MODES[name], arm))
            for name, arm in model.engines.items():
                label = ENGINES.get(name, name)
                if arm.missing is None:
                    table.rows.append(_way(model, label, arm))
                else:
                    cells = {c.key: _missing(arm.missing) for c in table.columns[:4]}
                    table.rows.append(Row(f"{model.label}: {label}", cells, model.pair, is_published=False))
                    gone.setdefault(arm.missing.rstrip("."), []).append(label.partition(",")[0])
    _note_engines(table, results.experiment)
    _note_conditions(table, results)
    reason = acceleration.missing_decoding(results.experiment)
    if reason is not None:
        gone.setdefault(reason, []).append("everything")
    _note_missing(table, gone)
    return table


def _way(model: Model, label: str, arm: Arm) -> Row:
    cells = {
        "tokens_per_second": measured(arm.tokens_per_second, "over prompts"),
        "milliseconds": Cell(Value((arm.milliseconds,))),
    }
    first, bound, share = (
        arm.spread(key) for key in ("first_token_milliseconds", "bound_milliseconds", "share_of_bound")
    )
    if first is not None:
        cells["first_token"] = measured(first, "over prompts")
    if arm.speedup is not None:
        cells["over_dense"] = measured(arm.speedup, "prompt by prompt")
    elif (ratio := model.over(arm, "dense")) is not None:
        cells["over_dense"] = Cell(Value((ratio,)), note="ratio of medians")
    if (ratio := model.over(arm, "torch")) is not None:
        cells["over_torch"] = Cell(Value((ratio,)), note="ratio of medians")
    if arm.bytes is not None:
        parts = ", ".join(f"{part} {size:,}" for part, size in arm.raw["bytes"].items() if part != "all")
        cells["megabytes"] = Cell(Value((arm.bytes / 1e6,)), note=f"bytes: {parts}")
    if bound is not None:
        cells["bound_tokens_per_second"] = Cell(Value((1e3 / bound.median,)))
    if share is not None:
        cells["share_of_bound"] = measured(share, "prompt by prompt", scale=100)
    if "overhead_milliseconds" in arm.raw:
        cells["overhead"] = Cell(Value((arm.raw["overhead_milliseconds"],)))
    same = model.raw.get("same_tokens_as_dense", {}).get(arm.name)
    if same is not None:
        cells["same_tokens"] = Cell(Value((100.0 * same,)))
    return Row(f"{model.label}: {label}", cells, model.pair, is_published=False)


def _note_engines(table: Table, experiment: Experiment) -> None:
    if experiment.decoding is None:
        return
    engines = experiment.decoding.engines
    off = [name for name, on in (("llama.cpp", engines.llama_cpp), ("PowerInfer", engines.powerinfer)) if not on]
    if off:
        table.note(f"Missing: {'; '.join(off)}: the experiment does not ask for {'it' if len(off) == 1 else 'them'}.")


# ---------------------------------------------------------------------------------- predictors


def table2_predictors(results: Results) -> Table:
    experiment = results.experiment
    table = Table(
        "table2_predictors",
        "Table 2, left half. Predictors of active neurons",
        [
            SPARSITY,
            RECALL,
            Column("precision", "Precision (%)", "%"),
            PREDICTED_SPARSITY,
            Column("marginal_recall", "Recall of frequency alone, there (%)", "%"),
            Column("loss", "Loss, exact", "nats/token", 3),
            Column("predicted_loss", "Loss, predicted", "nats/token", 3),
            Column("performance", "Average performance, exact (%)", "%"),
            Column("predicted_performance", "Average performance, predicted (%)", "%"),
        ],
        row_title="Setting and kind",
        notes=[
            "Activation recall: share of the active elements that are predicted active. Precision: share of the "
            "predicted-active elements that are active. Predicted sparsity: share of all elements that are predicted "
            "inactive. All over held-out text, mean over layers.",
            "Frequency alone: a neuron is predicted active where it was active in enough training tokens, whatever "
            "the token. Recall of frequency alone, there: with as many elements predicted inactive as in the row; what "
            "a predictor has learned about tokens is its recall beyond that.",
            "Loss and average performance, predicted: every neuron that is predicted inactive is left out.",
            WITHOUT_SHIFTING,
        ],
    )
    pairs, names = acceleration.predicted_pairs(experiment), acceleration.kinds(experiment)
    finals = acceleration.final_pairs(experiment)
    gone: dict[str, list[str]] = {}
    for setting in settings():
        if setting.is_dense:
            continue
        if setting.name not in pairs:
            reason = no_run(setting.name) if setting.name not in acceleration.pairs(experiment) else ""
            reason = reason or acceleration.missing_predictors(experiment) or "its activation has no zeros to predict"
            gone.setdefault(reason, []).append(setting.name)
            table.rows.append(
                Row(setting.name, {c.key: _missing(reason, setting.printed.get(c.key, "")) for c in table.columns})
            )
            continue
        found = acceleration.prediction(results, pairs[setting.name])
        for kind in names:
            is_first = kind == names[0]
            cells = _of_kind(found, kind, setting.printed if is_first else {})
            if is_first and setting.name in finals:
                cells |= _performance(table, results, pairs[setting.name])
            pair = f"{pairs[setting.name]}, {KINDS[kind]}"
            table.rows.append(Row(setting.name, cells, pair, is_published=is_first))
    _note_predictor(table, experiment)
    if pairs:
        _note_origins(table, results, pairs)
        table.note(
            f"Kinds: {KINDS['nonzero']}: trained, active is x1 not 0; {KINDS['top']}: trained, active is the largest "
            f"{experiment.predictors.top:.0%} of |x1|; {KINDS['svd']}: the gate's singular vectors."  # type: ignore[union-attr]
        )
    _note_missing(table, gone)
    return table


def _of_kind(found: acceleration.Prediction, kind: str, printed: dict[str, str]) -> dict[str, Cell]:
    shown = found.kinds[kind]
    note = f"{KINDS[kind]}, decision threshold {found.decision_threshold:g}"
    cells = {
        SPARSITY.key: Cell(found.sparsity, printed.get(SPARSITY.key, "")),
        RECALL.key: Cell(shown.recall, printed.get(RECALL.key, ""), note),
        "precision": Cell(shown.precision, note=note if shown.precision else f"{MISSING}: nothing is predicted active"),
        PREDICTED_SPARSITY.key: Cell(shown.predicted_sparsity, printed.get(PREDICTED_SPARSITY.key, ""), note),
        "loss": Cell(found.loss),
    }
    if kind != MARGINAL:
        cells["marginal_recall"] = Cell(
            found.kinds[MARGINAL].recall_at(shown.predicted_sparsity), note="interpolated between decision thresholds"
        )
    if shown.loss is not None:
        cells["predicted_loss"] = Cell(shown.loss, note=note)
    return cells


def _performance(table: Table, results: Results, pair: str) -> dict[str, Cell]:
    run, activation = results.experiment.pair(pair)
    found: dict[str, BenchmarkColumn] = {
        "performance": results.benchmarks(run, activation).average(),
        "predicted_performance": results.predicted_benchmarks(run, activation).average(),
    }
    cells = {}
    for key, column in found.items():
        if not column.missing:
            cells[key] = Cell(column.value)
            continue
        gone = ", ".join(published.LABELS[name] for name in column.missing)
        if column.value is None:
            cells[key] = _missing("no benchmark has a score")
            continue
        text = f"mean of the {len(column.used)} columns measured, of 7; missing: {gone}"
        cells[key] = Cell(column.value, note=text, mark="†")
        table.note(f"† {text}.")
    return cells


def _predictors_needs(experiment: Experiment) -> Needs:
    return acceleration.prediction_needs(experiment) | acceleration.predicted_benchmarks_needs(experiment)


#: What must be measured before each table can be written.
INPUTS: dict[str, Callable[[Experiment], Needs]] = {
    "table2": _table2_needs,
    "table2_decoding": acceleration.decoding_needs,
    "table2_predictors": _predictors_needs,
}
