"""The paper's result tables with ours beside every cell.

A row of the paper is shown in two lines, the paper's and ours. What was not measured is printed
as missing, with the reason in the notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prosparse.config import PAPER_DATASETS, ROW_KEYS, Activation, ConfigError, Experiment, RunInit
from prosparse.files import write_text
from prosparse.paper import acceleration_tables, operator_tables, own_tables, published
from prosparse.paper.filler import (
    BITS,
    FACTOR,
    LEGEND,
    LOSS,
    NORMALISATION,
    PERFORMANCE,
    SPARSITY,
    TOKENS,
    Filler,
    billions,
    budgets,
    count,
    exact,
    final_value,
    names_of,
)
from prosparse.paper.origins import stands_in
from prosparse.paper.results import Needs, Results, Value
from prosparse.paper.table import MISSING, Cell, Column, Row, Table, to_csv, to_latex, to_markdown
from prosparse.runs import tokens

# ---------------------------------------------------------------------------------- the tables


def _by_setting(results: Results, name: str, title: str, source: str, columns: list[Column], *notes: str) -> Table:
    """A table whose rows are settings (Tables 1, 3 and 8)."""
    filler = Filler(results, Table(name, title, columns, notes=[LEGEND, *notes]))
    for row in published.rows(source):
        amount = published.tokens().get(row["setting"])
        printed = {**row, TOKENS.key: billions(amount)} if amount else row
        filler.table.rows.append(filler.row(row["setting"], row["setting"], printed))
    return filler.finish()


def _chance(results: Results, table: Table) -> None:
    """Adds the score of a uniform guess, under the rows that were measured."""
    for text in [row.pair for row in table.rows if row.pair]:
        measured = results.benchmarks(*results.experiment.pair(text))
        cells: dict[str, Cell] = {}
        for column in table.columns:
            if column.key in measured.chances:
                cells[column.key] = Cell(measured.chances[column.key])
            elif column.key in published.GROUPS:
                cells[column.key] = Cell(measured.column(column.key).chance)
            elif column.key == "average_performance":
                cells[column.key] = Cell(measured.average().chance)
        cells = {key: Cell(cell.ours, note="score of a uniform guess") for key, cell in cells.items() if cell.ours}
        if cells:
            table.rows.append(Row("Chance level", cells, is_published=False))
            return


def table1(results: Results) -> Table:
    table = _by_setting(
        results,
        "table1",
        "Table 1. Overall: performance and sparsity",
        "table1_overall",
        [*PERFORMANCE, SPARSITY, TOKENS, LOSS, BITS],
        budgets(),
    )
    _chance(results, table)
    return table


def table1_early_baselines(results: Results) -> Table:
    return _by_setting(
        results,
        "table1_early_baselines",
        "Table 1, early baselines. Vanilla ReLU, shifted ReLU and fixed L1",
        "table1_early_baselines",
        [SPARSITY, *PERFORMANCE, TOKENS, LOSS, BITS],
        budgets(),
    )


def table3(results: Results) -> Table:
    names = [name for group in published.GROUPS.values() if len(group) > 1 for name in group]
    table = _by_setting(
        results,
        "table3",
        "Table 3. Benchmarks behind the first three columns of Table 1",
        "table3_benchmarks",
        [*(Column(name, published.LABELS[name], "%") for name in names), LOSS, BITS],
    )
    _chance(results, table)
    return table


def table4(results: Results) -> Table:
    filler = Filler(
        results,
        Table(
            "table4",
            "Table 4. Baselines without regularization, at two token budgets",
            [TOKENS, SPARSITY, PERFORMANCE[-1], LOSS, BITS],
            notes=[LEGEND, "Accumulated tokens: of the run from the activation swap on."],
        ),
    )

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        return {TOKENS.key: Cell(exact(tokens(results.experiment, run)))}

    for row in published.rows("table4_regularization_free"):
        amount = row["accumulated_tokens_billion"]
        key = _key("table4_regularization_free", row)
        printed = {**row, TOKENS.key: billions(amount)}
        filler.table.rows.append(filler.row(f"{row['setting']}, {amount} B tokens", key, printed, extra))
    return filler.finish()


def _key(table: str, row: dict[str, str]) -> str:
    return " ".join(row[column] for column in ROW_KEYS[table])


def table5(results: Results) -> Table:
    filler = Filler(
        results,
        Table(
            "table5",
            "Table 5. Constant regularization factor against ProSparse",
            [FACTOR, SPARSITY, PERFORMANCE[-1], TOKENS, LOSS, BITS],
            notes=[LEGEND, NORMALISATION, budgets()],
        ),
    )

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        return {FACTOR.key: Cell(exact(results.experiment.runs[run].stages[-1].peak))}

    for row in published.rows("table5_constant_factor"):
        constant = row["lambda"] != "ProSparse"
        printed = {**row, "lambda": row["lambda"] if constant else ""}
        label = f"{row['scale']}, λ = {row['lambda']}" if constant else f"{row['scale']}, ProSparse"
        filler.table.rows.append(filler.row(label, _key("table5_constant_factor", row), printed, extra))
    return filler.finish()


def table9(results: Results) -> Table:
    threshold = Column("threshold", "Threshold t", "", None)
    filler = Filler(
        results,
        Table(
            "table9",
            "Table 9. Activation threshold shifting: FATReLU thresholds",
            [threshold, SPARSITY, *PERFORMANCE, LOSS, BITS],
            notes=[LEGEND],
        ),
    )

    def extra(run: str, activation: Activation) -> dict[str, Cell]:
        if activation.name not in ("relu", "fatrelu"):
            return {threshold.key: Cell(note=f"{MISSING}: {activation} has no threshold")}
        return {threshold.key: Cell(exact(activation.parameter or 0.0))}

    for row in published.rows("table9_threshold_sweep"):
        key = _key("table9_threshold_sweep", row)
        filler.table.rows.append(filler.row(f"{row['model']}, t = {row['threshold']}", key, row, extra))
    return filler.finish()


def table8(results: Results) -> Table:
    experiment = results.experiment
    notes = [f"Mixed: the corpora weighted by the mixture `{experiment.data.mixed}`."]
    stand_ins = [
        f"{published.LABELS[corpus.stands_for]}: `{name}`"
        for name, corpus in experiment.data.corpora.items()
        if corpus.stand_in
    ]
    if stand_ins:
        notes.append(f"Stand-in corpora: {'; '.join(stand_ins)}.")
    uncovered = [d for d in PAPER_DATASETS if d not in {c.stands_for for c in experiment.data.corpora.values()}]
    if uncovered:
        notes.append(
            f"Missing: no corpus of this experiment stands for {', '.join(published.LABELS[d] for d in uncovered)}."
        )
    columns = [Column(name, published.LABELS[name], "%") for name in ("mixed", *PAPER_DATASETS)]
    return _by_setting(
        results,
        "table8",
        "Table 8. Average sparsity by data set",
        "table8_dataset_sparsity",
        [*columns, LOSS, BITS],
        *notes,
    )


# ------------------------------------------------------------------------ Tables 6 and 7: stages


def _stages(experiment: Experiment, scale: str) -> dict[str, tuple[str, int, int, int]]:
    """Published stage name -> (run, stage, accumulated steps, accumulated tokens) of ours.

    Runs of a scale continue one another. For 1B, the first run holds the numbered stages, the
    second is decay, the third SFT; elsewhere stages are numbered on.
    """
    found: dict[str, tuple[str, int, int, int]] = {}
    before: dict[str, tuple[int, int]] = {}  # steps and tokens a run starts with
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


def _stage_table(results: Results, name: str, title: str, source: str) -> Table:
    experiment = results.experiment
    columns = [
        Column("lambda", "λ at the end", "", None),
        Column("accumulated_steps", "Accumulated steps", "", 0),
        TOKENS,
        Column("sparsity", "Sparsity at the end", "%"),
        Column("lm_loss", "LM loss at the end", "nats/token", 3),
    ]
    notes = [
        "Numbers in full. Ours: mean (standard deviation over seeds, where there are several). Sparsity and LM loss "
        "are the training ledger's last values, over training batches; the paper prints neither.",
        NORMALISATION,
    ]
    table = Table(name, title, columns, notes=notes, row_title="Stage")
    absent = []
    origins: dict[str, list[str]] = {}
    rows = published.rows(source)
    for scale in dict.fromkeys(row["model"] for row in rows):
        ours = _stages(experiment, scale)
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
            pair = None
            if stage in ours:
                run, index, steps, amount = ours[stage]
                pair = f"{run}, stage {index}"
                origins.setdefault(stands_in(experiment, scale, run), []).append(run)
                final = [record["final"] for record in results.stage(run, index)]
                values: dict[str, Value | None] = {
                    "lambda": exact(experiment.runs[run].stages[index].peak),
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
                        note=origin if value is not None else f"{MISSING}: the stage trains nothing; {origin}",
                    )
                    for key, value in values.items()
                }
            else:
                note = f"{MISSING}: no stage of this experiment stands for it"
                cells = {
                    key: Cell(published=cell.published, note=note, published_text=cell.published_text)
                    for key, cell in cells.items()
                }
            label = f"{scale}, stage {stage}" if stage.isdigit() else f"{scale}, {stage.replace('sft', 'SFT')}"
            if pair is None:
                absent.append(label)
            table.rows.append(Row(label, cells, pair, is_published=row is not None))
    for words, runs in origins.items():
        notes.append(f"Ours is {'a ' if words.startswith('stand-in') else ''}{words} (runs: {names_of(runs)}).")
    if absent:
        notes.append(f"Missing: {'; '.join(absent)}: no stage of this experiment stands for it.")
    notes.append(f"Experiment `{experiment.experiment}`, {count(len(experiment.seeds), 'seed')}.")
    return table


def table6(results: Results) -> Table:
    return _stage_table(results, "table6", "Table 6. Training stages of the LLaMA2 models", "table6_stages_llama2")


def table7(results: Results) -> Table:
    return _stage_table(
        results, "table7", "Table 7. Training stages of MiniCPM-1B, decay and SFT", "table7_stages_minicpm"
    )


# ------------------------------------------------------------------------------------ the entry

TABLES: dict[str, Callable[[Results], Table]] = {
    "table1": table1,
    "table1_early_baselines": table1_early_baselines,
    "table2": acceleration_tables.table2,
    "table2_decoding": acceleration_tables.table2_decoding,
    "table2_predictors": acceleration_tables.table2_predictors,
    "table2_operators": operator_tables.table2_operators,
    "table2_operators_limit": operator_tables.table2_operators_limit,
    "table2_operators_fit": operator_tables.table2_operators_fit,
    "table2_operators_gpu": operator_tables.table2_operators_gpu,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "table7": table7,
    "table8": table8,
    "table9": table9,
    "ours": own_tables.ours,
    "search": own_tables.search,
}

_SOURCES = {
    "table1": "table1_overall",
    "table1_early_baselines": "table1_early_baselines",
    "table3": "table1_overall",  # the same settings
    "table4": "table4_regularization_free",
    "table5": "table5_constant_factor",
    "table9": "table9_threshold_sweep",
}


def inputs(name: str, experiment: Experiment) -> Needs:
    """What must be measured before ``name`` can be written."""
    _check(name)
    if name in acceleration_tables.INPUTS:
        return acceleration_tables.INPUTS[name](experiment)
    if name in own_tables.INPUTS:
        return own_tables.INPUTS[name](experiment)
    if name.startswith("table2_operators"):
        return Needs(operators=experiment.operators is not None)
    if name in ("table6", "table7"):
        scales = ("7B", "13B") if name == "table6" else ("1B",)
        stages = {(entry[0], entry[1]) for scale in scales for entry in _stages(experiment, scale).values()}
        return Needs(stages=stages)
    if name == "table8":
        settings = [row["setting"] for row in published.rows("table8_dataset_sparsity")]
        pairs = [experiment.rows[setting] for setting in settings if setting in experiment.rows]
        return Needs(sparsity=Needs.of_pairs(experiment, pairs).sparsity)
    source = _SOURCES[name]
    keys = [_key(source, row) for row in published.rows(source)]
    needs = Needs.of_pairs(experiment, (experiment.rows[key] for key in keys if key in experiment.rows))
    return needs


def write(name: str, experiment: Experiment, directory: str | Path) -> list[Path]:
    """Writes ``directory/tables/{name}.csv``, ``.md`` and ``.tex``; ``directory`` is ``results/{experiment}``.

    Raises:
        ConfigError: no such table.
        MissingResult: a measurement it needs does not exist; names the file.
    """
    _check(name)
    table = TABLES[name](Results(directory, experiment))
    written = []
    for suffix, render in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
        path = Path(directory) / "tables" / f"{name}.{suffix}"
        write_text(path, render(table))
        written.append(path)
    return written


def _check(name: str) -> None:
    if name not in TABLES:
        raise ConfigError(f"table {name!r}: no such table; there are {', '.join(TABLES)}")
