"""Fill table rows from the measurements of pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from prosparse.experiment.activation import Activation
from prosparse.experiment.data import PAPER_DATASETS
from prosparse.experiment.lineage import lineage_tokens
from prosparse.paper.results.benchmarks import Benchmarks
from prosparse.paper.results.chance import averaged
from prosparse.paper.results.labels import label
from prosparse.paper.results.origins import no_run, origin_note, stands_in
from prosparse.paper.results.reader import Results
from prosparse.paper.results.sparsity import Sparsity
from prosparse.paper.results.value import exact
from prosparse.paper.tables.columns import BITS, LOSS, TOKENS
from prosparse.paper.tables.notes import count, names_of
from prosparse.paper.tables.scores import average_cell, column_cell, marked, note_chance, score_cell
from prosparse.paper.tables.table import MISSING, Cell, Row, Table
from prosparse.published.tables import BENCHMARKS, GROUPS, LABELS

#: (run, activation) -> cells that do not come from the run's measurements.
Extra = Callable[[str, Activation], dict[str, Cell]]


@dataclass
class Filler:
    """Turns pairs into cells and collects the notes that the table needs."""

    results: Results
    table: Table
    origins: dict[str, list[str]] = field(default_factory=dict)
    incomplete: dict[str, list[str]] = field(default_factory=dict)
    measured: list[str] = field(default_factory=list)
    absent: dict[str, list[str]] = field(default_factory=dict)
    unasked: list[str] = field(default_factory=list)  # pairs that are not benchmarked

    def row(self, title: str, key: str, printed: dict[str, str], extra: Extra | None = None) -> Row:
        """Fill the row of published key ``key``; ``printed`` holds its published cells, ``extra`` adds the run's."""
        pair = self.results.experiment.rows.get(key)
        if pair is not None:
            return self._filled(title, pair, key, printed, extra)
        reason = no_run(title)
        self.absent.setdefault(reason, []).append(title)
        note = f"{MISSING}: {reason}"
        return Row(
            title, {column.key: Cell(published=printed.get(column.key, ""), note=note) for column in self.table.columns}
        )

    def own_row(self, title: str, pair: str, extra: Extra | None = None) -> Row:
        """Fill a row that the paper does not have."""
        return self._filled(title, pair, None, {}, extra)

    def _filled(self, title: str, pair: str, key: str | None, printed: dict[str, str], extra: Extra | None) -> Row:
        experiment = self.results.experiment
        names = [column.key for column in self.table.columns]
        run, activation = experiment.pair(pair)
        origin = stands_in(experiment, key, run)
        self.origins.setdefault(origin, []).append(run)
        text = f"{run}@{activation}"
        self.measured.append(text)
        cells: dict[str, Cell] = {}
        if set(names) & {*GROUPS, *BENCHMARKS, "average_performance"}:
            if experiment.answers_benchmarks(run, activation):
                cells |= self._performance(text, key, self.results.benchmarks(run, activation))
            else:
                self.unasked.append(text)
        if set(names) & {"average_sparsity", "mixed", LOSS.key}:
            cells |= self._sparsity(self.results.sparsity(run, activation))
        if TOKENS.key in names:
            cells[TOKENS.key] = Cell(exact(lineage_tokens(experiment, run)))
        if extra is not None:
            cells |= extra(run, activation)
        return Row(
            title,
            {
                name: replace(
                    cells.get(name, Cell()),
                    published=printed.get(name, ""),
                    note="; ".join(filter(None, [cells.get(name, Cell()).note, origin])),
                )
                for name in names
            },
            text,
            is_published=key is not None,
            model=label(experiment, text),
        )

    def _performance(self, pair: str, key: str | None, benchmarks: Benchmarks) -> dict[str, Cell]:
        shown = {column.key for column in self.table.columns}
        columns = {name: benchmarks.column(name) for name in GROUPS}
        cells = {name: column_cell(name, column) for name, column in columns.items()}
        chances = {name: column.chance for name, column in columns.items()} | benchmarks.chances
        if "average_performance" in shown:
            chosen = averaged(self.results, key, pair.partition("@")[0])
            average = benchmarks.average(chosen.columns)
            cells["average_performance"] = average_cell(average, chosen)
            chances["average_performance"] = average.chance
        for name, cell in cells.items():
            if cell.note and name in shown:
                self.incomplete.setdefault(cell.note, []).append(pair)
        cells |= {name: score_cell(benchmarks, name) for name in BENCHMARKS if name not in GROUPS}
        for name, detail in benchmarks.details.items():
            wanted = {name, *(group for group, members in GROUPS.items() if name in members)}
            if detail.get("stand_in") and wanted & shown:
                self.table.note(f"{LABELS[name]} is a stand-in: {detail['stand_in'].rstrip('.')}.")
        return {name: marked(cell, chances.get(name)) for name, cell in cells.items()}

    def _sparsity(self, measured: Sparsity) -> dict[str, Cell]:
        cells = {
            "average_sparsity": Cell(measured.sparsity),
            "mixed": Cell(measured.sparsity),
            LOSS.key: Cell(measured.loss),
            BITS.key: Cell(measured.bits_per_byte),
        }
        by_dataset = measured.by_dataset()
        for name in PAPER_DATASETS:
            cells[name] = Cell(
                by_dataset.get(name), note="" if name in by_dataset else f"{MISSING}: no corpus stands for it"
            )
        return cells

    def _named(self, pairs: list[str]) -> str:
        return "; ".join(dict.fromkeys(f"*{label(self.results.experiment, pair)}*" for pair in pairs))

    def finish(self) -> Table:
        notes = self.table.notes
        note_chance(self.table)
        for words, runs in self.origins.items():
            notes.append(origin_note(words, (label(self.results.experiment, run) for run in runs)))
        for text, pairs in self.incomplete.items():
            everywhere = set(pairs) == set(self.measured)
            notes.append(text + ("." if everywhere else f" (in {self._named(pairs)})."))
        if self.unasked:
            notes.append(f"Not benchmarked in this experiment: {self._named(self.unasked)}.")
        for reason, labels in self.absent.items():
            notes.append(f"Missing: {names_of(labels)}: {reason}.")
        seeds = self.results.experiment.seeds
        notes.append(f"Experiment `{self.results.experiment.experiment}`, {count(len(seeds), 'seed')}.")
        return self.table
