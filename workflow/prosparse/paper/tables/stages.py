"""The training stages of a model size (Tables 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import tokens
from prosparse.experiment.model import RunInit
from prosparse.paper.results.final_factor import stage_factor
from prosparse.paper.results.labels import run_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import origin_note, stands_in
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value, exact
from prosparse.paper.tables.columns import TOKENS, billions, final_value
from prosparse.paper.tables.notes import NORMALIZATION, count
from prosparse.paper.tables.table import MISSING, Cell, Column, Row, Table
from prosparse.published.tables import published_table


def stages_needs(experiment: Experiment, scales: Sequence[str]) -> Needs:
    return Needs(stages={(entry[0], entry[1]) for scale in scales for entry in stages_of(experiment, scale).values()})


def stages_of(experiment: Experiment, scale: str) -> dict[str, tuple[str, int, int, int]]:
    """Return published stage name -> our (run, stage, accumulated steps, accumulated tokens).

    The runs of a scale continue one another. For 1B, the first run holds the numbered stages, the second is decay and
    the third SFT; the other scales number their stages consecutively.
    """
    found: dict[str, tuple[str, int, int, int]] = {}
    before: dict[str, tuple[int, int]] = {}  # steps and tokens that a run starts with
    for position, run in enumerate(experiment.stages.get(scale, [])):  # type: ignore[call-overload]
        chosen = experiment.runs[run]
        steps, amount = 0, 0
        if isinstance(chosen.init, RunInit) and chosen.init.run in before:
            previous = experiment.runs[chosen.init.run]
            last = len(previous.stages) - 1 if chosen.init.stage is None else chosen.init.stage
            steps = before[chosen.init.run][0] + previous.stages[last].until
            amount = before[chosen.init.run][1] + tokens(experiment, chosen.init.run, last)
        before[run] = (steps, amount)
        for stage, specification in enumerate(chosen.stages):
            if scale == "1B" and position in (1, 2):
                phase = ("decay", "sft")[position - 1]
                name = phase if stage == len(chosen.stages) - 1 else f"{phase}, part {stage + 1}"
            else:
                name = str(len(found))
            found[name] = (run, stage, steps + specification.until, amount + tokens(experiment, run, stage))
    return found


def stage_table(results: Results, name: str, title: str, source: str) -> Table:
    experiment = results.experiment
    columns = [
        Column("lambda", "Final λ", "", None),
        Column("accumulated_steps", "Accumulated steps", "", 0),
        TOKENS,
        Column("sparsity", "Final sparsity", "%"),
        Column("lm_loss", "Final LM loss", "nats/token", 3),
    ]
    notes = [
        "Numbers are printed in full. Ours: mean (standard deviation over seeds, if there are several). Sparsity and "
        "LM loss are the last values of the training ledger, over training batches; the paper reports neither.",
        NORMALIZATION,
    ]
    table = Table(name, title, columns, notes=notes, row_title="Stage")
    absent = []
    origins: dict[str, list[str]] = {}
    rows = published_table(source)
    for scale in dict.fromkeys(row["model"] for row in rows):
        ours = stages_of(experiment, scale)
        printed_rows = {row["stage"]: row for row in rows if row["model"] == scale}
        for stage in dict.fromkeys([*printed_rows, *ours]):
            row = printed_rows.get(stage)
            cells: dict[str, Cell] = {}
            if row is not None:
                in_full = billions(row["accumulated_tokens_billion"])
                cells = {
                    "lambda": Cell(published=row["lambda"]),
                    "accumulated_steps": Cell(
                        published=row["accumulated_steps"], published_text=f"{int(row['accumulated_steps']):,}"
                    ),
                    TOKENS.key: Cell(published=in_full, published_text=f"{int(in_full):,}"),
                    "sparsity": Cell(),
                    "lm_loss": Cell(),
                }
            pair, model = None, ""
            if stage in ours:
                run, index, steps, amount = ours[stage]
                pair, model = f"{run}, stage {index}", f"{run_label(experiment, run)}, stage {index}"
                origins.setdefault(stands_in(experiment, scale, run), []).append(run)
                final = [record["final"] for record in results.stage(run, index)]
                values: dict[str, Value | None] = {
                    "lambda": stage_factor(results, run, index),
                    "accumulated_steps": exact(steps),
                    TOKENS.key: exact(amount),
                    "sparsity": final_value(final, "sparsity", 100),
                    "lm_loss": final_value(final, "lm_loss"),
                }
                origin = stands_in(experiment, scale, run)
                cells = {
                    key: replace(
                        cells.get(key, Cell()),
                        ours=value,
                        note=origin if value is not None else f"{MISSING}: this stage does not train; {origin}",
                    )
                    for key, value in values.items()
                }
                if experiment.runs[run].stages[index].steered:
                    text = experiment.runs[run].stages[index].factor_text
                    cells["lambda"] = replace(cells["lambda"], note=f"steered to {text}; {origin}")
            else:
                note = f"{MISSING}: no stage of this experiment stands for it"
                cells = {
                    key: Cell(published=cell.published, note=note, published_text=cell.published_text)
                    for key, cell in cells.items()
                }
            label = f"{scale}, stage {stage}" if stage.isdigit() else f"{scale}, {stage.replace('sft', 'SFT')}"
            if pair is None:
                absent.append(label)
            table.rows.append(Row(label, cells, pair, row is not None, model))
    for words, runs in origins.items():
        notes.append(origin_note(words, (run_label(experiment, run) for run in runs)))
    if absent:
        notes.append(f"Missing: {'; '.join(absent)}: no stage of this experiment stands for it.")
    notes.append(f"Experiment `{experiment.experiment}`, {count(len(experiment.seeds), 'seed')}.")
    return table
