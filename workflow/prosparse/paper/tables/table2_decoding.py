"""Table 2, left half: decoding speed of every model in every mode."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import accelerated
from prosparse.paper.results.decoding import ENGINES, MODES, Arm, Model, every_decoding
from prosparse.paper.results.labels import label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.acceleration_cells import WITHOUT_SHIFTING, missing_cell, note_conditions, note_missing
from prosparse.paper.tables.operator_cells import measured
from prosparse.paper.tables.table import Cell, Column, Row, Table


def needs(experiment: Experiment) -> Needs:
    return accelerated.decoding_needs(experiment)


def build(results: Results) -> Table:
    table = Table(
        "table2_decoding",
        "Table 2, left half. Decoding speed of every model in every mode",
        [
            Column("tokens_per_second", "Tokens/s", ""),
            Column("milliseconds", "Time per token", "ms"),
            Column("first_token", "Time to first token", "ms", 1),
            Column("over_dense", "Speedup over ours, dense", ""),
            Column("over_torch", "Speedup over transformers", ""),
            Column("megabytes", "Read per token", "MB", 1),
            Column("bound_tokens_per_second", "Bound, tokens/s", ""),
            Column("share_of_bound", "Share of bound (%)", "%", 0),
            Column("overhead", "Outside weight reads", "ms"),
            Column("same_tokens", "Same tokens as dense (%)", "%", 1),
        ],
        row_title="Model and mode",
        notes=[
            "Ours, dense: our kernels, every neuron. Ours, exact: the whole gate, then only its active neurons. Ours, "
            "predicted: only the neurons that a predictor calls active. Transformers: the library's own model, with "
            "torch's matrix products. All decode the same prompts with the same weights.",
            "Bound: set by the bytes that a token must read and the memory's sequential read bandwidth in the same "
            "run. Share of bound: how close the measured time comes. Outside weight reads: time per token spent "
            "outside the operators that read weights. Weights that stay in the processor's cache can beat the bound.",
            "Speedup over ours, dense: prompt by prompt (other engines: ratio of medians). Same tokens: greedy tokens "
            "that equal those of dense decoding.",
            WITHOUT_SHIFTING,
        ],
    )
    gone: dict[str, list[str]] = {}
    for decoding in every_decoding(results):
        for model in decoding.models:
            for name, arm in model.modes.items():
                table.rows.append(_way(results, model, MODES[name], arm))
            for name, arm in model.engines.items():
                title = ENGINES.get(name, name)
                if arm.missing is None:
                    table.rows.append(_way(results, model, title, arm))
                else:
                    cells = {c.key: missing_cell(arm.missing) for c in table.columns[:4]}
                    table.rows.append(_row(results, model, title, cells))
                    gone.setdefault(arm.missing.rstrip("."), []).append(title.partition(",")[0])
    _note_engines(table, results.experiment)
    note_conditions(table, results)
    reason = accelerated.missing_decoding(results.experiment)
    if reason is not None:
        gone.setdefault(reason, []).append("everything")
    note_missing(table, gone)
    return table


def _row(results: Results, model: Model, way: str, cells: dict[str, Cell]) -> Row:
    named = "" if model.raw["synthetic"] or model.pair is None else label(results.experiment, model.pair)
    return Row(f"{model.label}: {way}", cells, model.pair, is_published=False, model=named)


def _way(results: Results, model: Model, way: str, arm: Arm) -> Row:
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
    return _row(results, model, way, cells)


def _note_engines(table: Table, experiment: Experiment) -> None:
    if experiment.decoding is None:
        return
    engines = experiment.decoding.engines
    off = [name for name, on in (("llama.cpp", engines.llama_cpp), ("PowerInfer", engines.powerinfer)) if not on]
    if off:
        table.note(f"Missing: {'; '.join(off)}: the experiment does not ask for {'it' if len(off) == 1 else 'them'}.")
