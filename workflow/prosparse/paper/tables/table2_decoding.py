"""Table 2, left half: decoding speed by model and precision."""

from __future__ import annotations

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results import accelerated
from prosparse.paper.results.decoding import ENGINES, MODES, Arm, Model, decoding_in_all_precisions
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.acceleration_cells import (
    WITHOUT_SHIFTING,
    decoded_row,
    missing_cell,
    note_conditions,
    note_missing,
)
from prosparse.paper.tables.columns import LOSS, SPARSITY
from prosparse.paper.tables.operator_cells import measured
from prosparse.paper.tables.table import Cell, Column, Row, Table

WEIGHTS_ONLY = "weights in this precision, computed in float32"
#: Our modes that skip neurons, and what their speed is compared with.
COMPARED = [(mode, over) for over in ("dense", "llama.cpp") for mode in ("exact", "predicted")]


def needs(experiment: Experiment) -> Needs:
    return accelerated.decoding_needs(experiment) | Needs(precision=_measures_loss(experiment))


def _measures_loss(experiment: Experiment) -> bool:
    return experiment.decoding is not None and experiment.decoding.rounds and bool(table2_rows.decoded(experiment))


def build(results: Results) -> Table:
    asked = _engines(results.experiment)
    ways = {"torch": MODES["torch"], **{name: title for name, title in ENGINES.items() if name in asked}, **MODES}
    table = Table(
        "table2_decoding",
        "Table 2, left half. Decoding speed",
        [
            *(Column(way, f"Tokens/s: {title}", "") for way, title in ways.items()),
            *(
                Column(f"{mode}_over_{over}", f"Speedup, {mode} over {over}", "")
                for mode, over in COMPARED
                if over in ways
            ),
            *([SPARSITY, LOSS] if _measures_loss(results.experiment) else []),
        ],
        row_title="Model and precision of weights",
        notes=[
            "Ours, dense: our kernels, every neuron. Ours, exact: the whole gate, then only its active neurons. Ours, "
            "predicted: only the neurons predicted to be active. Transformers: the library's own model, with "
            "torch's matrix products, in 16 and 32 bits. All decode the same prompts with the same weights.",
            "Speedup: turn by turn where both took turns in one process, else the ratio of medians.",
            WITHOUT_SHIFTING,
        ],
    )
    gone: dict[str, list[str]] = {}
    decodings, quality = decoding_in_all_precisions(results), _quality(results)
    for decoding in decodings:
        for model in decoding.models:
            row = _row(results, model, list(ways), gone)
            row.cells.update(quality.get((model.pair, model.precision), {}))
            table.rows.append(row)
    if any(model.precision in ("q8_0", "q4_0") for decoding in decodings for model in decoding.models):
        table.note("q8_0 and q4_0: ggml's formats, the same blocks in every engine; transformers has neither.")
    if _measures_loss(results.experiment):
        table.note("Sparsity and held-out loss: with weights in this precision, and all else in float32; one seed.")
    _note_engines(table, asked)
    note_conditions(table, decodings)
    reason = accelerated.missing_decoding(results.experiment)
    if reason is not None:
        gone.setdefault(reason, []).append("everything")
    note_missing(table, gone)
    return table


def _quality(results: Results) -> dict[tuple[str | None, str], dict[str, Cell]]:
    """Return the cells of loss and sparsity by pair and precision."""
    if not _measures_loss(results.experiment):
        return {}
    return {
        (found["pair"], found["precision"]): {
            LOSS.key: Cell(Value((found["loss"],)), note=WEIGHTS_ONLY),
            SPARSITY.key: Cell(Value((100 * found["sparsity"],)), note=WEIGHTS_ONLY),
        }
        for found in results.precision()["models"]
        if "missing" not in found
    }


def _row(results: Results, model: Model, ways: list[str], gone: dict[str, list[str]]) -> Row:
    cells: dict[str, Cell] = {}
    arms = {**model.modes, **model.engines}
    if model.missing is not None:
        cells = {mode: missing_cell(model.missing) for mode in ways if mode in MODES and mode != "torch"}
        gone.setdefault(model.missing.rstrip("."), []).append(f"{model.label}, {model.precision}")
    for mode, reason in model.raw.get("missing_modes", {}).items():
        cells[mode] = missing_cell(reason)
        gone.setdefault(reason.rstrip("."), []).append(f"{model.label}, {model.precision}, {mode}")
    for way in ways:
        if way not in arms:
            continue
        arm = arms[way]
        if arm.missing is None:
            note = "over prompts"
            if (own := arm.raw.get("precision", model.precision)) != model.precision:
                note = f"{note}; its weights are in {own}"
            cells[way] = measured(arm.tokens_per_second, note)
        else:
            cells[way] = missing_cell(arm.missing)
            name = ENGINES[way].partition(",")[0]
            gone.setdefault(arm.missing.rstrip("."), []).append(name)
    for mode, over in COMPARED:
        if mode in model.modes and over in arms and arms[over].missing is None:
            cells[f"{mode}_over_{over}"] = _speedup(model.modes[mode], arms[over])
    return decoded_row(results, model, "", cells)


def _speedup(arm: Arm, over: Arm) -> Cell:
    if (paired := arm.speedup_over(over.name)) is not None:
        return measured(paired, "turn by turn")
    return Cell(Value((over.milliseconds / arm.milliseconds,)), note="ratio of medians")


def _engines(experiment: Experiment) -> list[str]:
    """Return the other engines that the experiment asks for."""
    if experiment.decoding is None:
        return []
    engines = experiment.decoding.engines
    return [name for name, on in (("llama.cpp", engines.llama_cpp), ("powerinfer", engines.powerinfer)) if on]


def _note_engines(table: Table, asked: list[str]) -> None:
    off = [title.partition(",")[0] for name, title in ENGINES.items() if name not in asked]
    if off:
        table.note(f"Missing: {'; '.join(off)}: the experiment does not ask for {'it' if len(off) == 1 else 'them'}.")
