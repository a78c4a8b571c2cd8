"""Table 2, left half: how close decoding comes to the memory bandwidth."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import accelerated
from prosparse.paper.results.decoding import ENGINES, MODES, Arm, Model, decoding_in_all_precisions
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.acceleration_cells import WITHOUT_SHIFTING, decoded_row, note_conditions, note_missing
from prosparse.paper.tables.operator_cells import measured
from prosparse.paper.tables.table import Cell, Column, Row, Table


def needs(experiment: Experiment) -> Needs:
    return accelerated.decoding_needs(experiment)


def build(results: Results) -> Table:
    table = Table(
        "table2_decoding_limit",
        "Table 2, left half. Decoding and memory bandwidth",
        [
            Column("milliseconds", "Time per token", "ms"),
            Column("first_token", "Time to first token", "ms", 1),
            Column("megabytes", "Read per token", "MB", 1),
            Column("tokens_per_second", "Tokens/s", ""),
            Column("bound_tokens_per_second", "Bound, tokens/s", ""),
            Column("share_of_bound", "Share of bound (%)", "%", 0),
            Column("overhead", "Outside weight reads", "ms"),
            Column("same_tokens", "Same tokens as dense (%)", "%", 1),
        ],
        row_title="Model, precision and mode",
        notes=[
            "Bound: set by the bytes that a token must read and the memory's sequential read bandwidth in the same "
            "run. Share of bound: how close the measured time comes. Outside weight reads: time per token spent "
            "outside the operators that read weights. Weights that stay in the processor's cache can beat the bound.",
            "Same tokens: greedy tokens that equal those of dense decoding in the same precision.",
            WITHOUT_SHIFTING,
        ],
    )
    decodings = decoding_in_all_precisions(results)
    for decoding in decodings:
        for model in decoding.models:
            ways = {**model.modes, **{name: arm for name, arm in model.engines.items() if arm.missing is None}}
            table.rows += [_way(results, model, arm) for arm in ways.values()]
    note_conditions(table, decodings)
    reason = accelerated.missing_decoding(results.experiment)
    if reason is not None:
        note_missing(table, {reason: ["everything"]})
    return table


def _way(results: Results, model: Model, arm: Arm) -> Row:
    cells = {
        "milliseconds": Cell(Value((arm.milliseconds,))),
        "tokens_per_second": measured(arm.tokens_per_second, "over prompts"),
    }
    first, bound, share = (
        arm.spread(key) for key in ("first_token_milliseconds", "bound_milliseconds", "share_of_bound")
    )
    if first is not None:
        cells["first_token"] = measured(first, "over prompts")
    if arm.bytes is not None:
        parts = ", ".join(f"{part} {size:,}" for part, size in arm.raw["bytes"].items() if part != "all")
        cells["megabytes"] = Cell(Value((arm.bytes / 1e6,)), note=f"bytes: {parts}")
    if bound is not None:
        cells["bound_tokens_per_second"] = Cell(Value((1e3 / bound.median,)))
    if share is not None:
        cells["share_of_bound"] = measured(share, "prompt by prompt", scale=100)
    if "overhead_milliseconds" in arm.raw:
        cells["overhead"] = Cell(Value((arm.raw["overhead_milliseconds"],)))
    same = model.raw["same_tokens_as_dense"].get(arm.name)
    if same is not None:
        cells["same_tokens"] = Cell(Value((100.0 * same,)))
    return decoded_row(results, model, f": {({**MODES, **ENGINES})[arm.name]}", cells)
