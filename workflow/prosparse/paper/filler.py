"""How the rows of the result tables are filled: the columns and notes they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from prosparse.config import PAPER_DATASETS, Activation
from prosparse.paper import published
from prosparse.paper.origins import no_run, stands_in
from prosparse.paper.results import BenchmarkColumn, Benchmarks, Results, Sparsity, Value
from prosparse.paper.table import MISSING, Cell, Column, Row, Table
from prosparse.runs import lineage_tokens

LOSS = Column("held_out_loss", "Held-out loss", "nats/token", 3)
BITS = Column("bits_per_byte", "Bits/byte", "", 3)
PERFORMANCE = [Column(name, published.LABELS[name], "%") for name in (*published.GROUPS, "average_performance")]
SPARSITY = Column("average_sparsity", published.LABELS["average_sparsity"], "%")
TOKENS = Column("accumulated_tokens", "Accumulated tokens", "tokens", 0)
FACTOR = Column("lambda", "λ (last)", "", None)

SPREAD = (
    "Sparsity and scores in percent. Ours: mean ± standard error over benchmark rows (standard deviation over seeds, "
    "where there are several)."
)
LEGEND = f"{SPREAD} `*`: without activation threshold shifting. Held-out loss and bits/byte are ours alone."
NORMALISATION = (
    "Our λ multiplies the mean of |x1| over tokens and d_ff, summed over layers; the paper does not state its "
    "normalisation, so compare sparsities, not values of λ."
)

#: (run, activation) -> cells that the run's measurements do not give.
Extra = Callable[[str, Activation], dict[str, Cell]]


@dataclass
class Filler:
    """Turns pairs into cells and gathers the notes a table must carry."""

    results: Results
    table: Table
    origins: dict[str, list[str]] = field(default_factory=dict)
    incomplete: dict[str, list[str]] = field(default_factory=dict)
    measured: list[str] = field(default_factory=list)
    absent: dict[str, list[str]] = field(default_factory=dict)
    unasked: list[str] = field(default_factory=list)  # pairs that answer no benchmark

    def row(self, label: str, key: str, printed: dict[str, str], extra: Extra | None = None) -> Row:
        """The row of published key ``key``; ``printed`` are its published cells, ``extra`` adds cells from the run."""
        pair = self.results.experiment.rows.get(key)
        if pair is not None:
            return self._filled(label, pair, key, printed, extra)
        reason = no_run(label)
        self.absent.setdefault(reason, []).append(label)
        note = f"{MISSING}: {reason}"
        return Row(
            label, {column.key: Cell(published=printed.get(column.key, ""), note=note) for column in self.table.columns}
        )

    def own_row(self, label: str, pair: str, extra: Extra | None = None) -> Row:
        """A row that the paper does not have."""
        return self._filled(label, pair, None, {}, extra)

    def _filled(self, label: str, pair: str, key: str | None, printed: dict[str, str], extra: Extra | None) -> Row:
        experiment = self.results.experiment
        names = [column.key for column in self.table.columns]
        run, activation = experiment.pair(pair)
        origin = stands_in(experiment, key, run)
        self.origins.setdefault(origin, []).append(run)
        text = f"{run}@{activation}"
        self.measured.append(text)
        cells: dict[str, Cell] = {}
        if set(names) & {*published.GROUPS, *published.BENCHMARKS, "average_performance"}:
            if experiment.answers_benchmarks(run, activation):
                cells |= self._performance(text, self.results.benchmarks(run, activation))
            else:
                self.unasked.append(text)
        if set(names) & {"average_sparsity", "mixed", LOSS.key}:
            cells |= self._sparsity(self.results.sparsity(run, activation))
        if TOKENS.key in names:
            cells[TOKENS.key] = Cell(exact(lineage_tokens(experiment, run)))
        if extra is not None:
            cells |= extra(run, activation)
        return Row(
            label,
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
        )

    def _performance(self, pair: str, benchmarks: Benchmarks) -> dict[str, Cell]:
        cells = {
            name: Cell(
                benchmarks.scores.get(name), note="" if name in benchmarks.scores else self._gone(name, benchmarks)
            )
            for name in published.BENCHMARKS
        }
        for name in published.GROUPS:
            cells[name] = self._mean(pair, name, benchmarks.column(name))
        average = benchmarks.average()
        cells["average_performance"] = self._mean(pair, "average_performance", average)
        for name, detail in benchmarks.details.items():
            wanted = {name, *(group for group, members in published.GROUPS.items() if name in members)}
            if detail.get("stand_in") and wanted & {column.key for column in self.table.columns}:
                self.table.note(f"{published.LABELS[name]} is a stand-in: {detail['stand_in'].rstrip('.')}.")
        return cells

    @staticmethod
    def _gone(name: str, benchmarks: Benchmarks) -> str:
        return f"{MISSING}: {benchmarks.missing[name]}"

    def _mean(self, pair: str, name: str, column: BenchmarkColumn) -> Cell:
        """A mean over what is there, marked with a dagger and a note where something is not."""
        if not column.missing:
            return Cell(column.value)
        label = published.LABELS[name]
        each = {published.LABELS[key]: reason.rstrip(".") for key, reason in column.missing.items()}
        if column.value is None:
            gone = "; ".join(reason if key == label else f"{key}: {reason}" for key, reason in each.items())
            text = f"{label}: {MISSING} ({gone})"
        elif name == "average_performance":
            text = f"† {label}: mean of the {len(column.used)} columns measured, of 7; missing: {', '.join(each)}"
        else:
            used = ", ".join(published.LABELS[key] for key in column.used)
            gone = "; ".join(f"{key} ({reason})" for key, reason in each.items())
            text = f"† {label}: mean of {used}; missing: {gone}"
        if name in {c.key for c in self.table.columns}:
            self.incomplete.setdefault(text, []).append(pair)
        return Cell(column.value, note=text, mark="" if column.value is None else "†")

    def _sparsity(self, measured: Sparsity) -> dict[str, Cell]:
        cells = {
            "average_sparsity": Cell(measured.sparsity),
            "mixed": Cell(measured.sparsity),
            LOSS.key: Cell(measured.loss),
            BITS.key: Cell(measured.bits_per_byte),
        }
        by_dataset = measured.by_dataset()
        for name in PAPER_DATASETS:
            cells[name] = Cell(by_dataset.get(name), note="" if name in by_dataset else f"{MISSING}: no corpus for it")
        return cells

    def finish(self) -> Table:
        notes = self.table.notes
        for words, runs in self.origins.items():
            notes.append(f"Ours is {'a ' if words.startswith('stand-in') else ''}{words} (runs: {names_of(runs)}).")
        for text, pairs in self.incomplete.items():
            everywhere = set(pairs) == set(self.measured)
            notes.append(text + ("." if everywhere else f" (in {names_of(pairs)})."))
        if self.unasked:
            notes.append(f"Performance is missing where this experiment asks for none: {names_of(self.unasked)}.")
        for reason, labels in self.absent.items():
            notes.append(f"Missing: {names_of(labels)}: {reason}.")
        seeds = self.results.experiment.seeds
        notes.append(f"Experiment `{self.results.experiment.experiment}`, {count(len(seeds), 'seed')}.")
        return self.table


def names_of(names: Iterable[str]) -> str:
    return "; ".join(f"`{name}`" for name in dict.fromkeys(names))


def count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def exact(number: float) -> Value:
    """A number the config fixes: no spread, no error."""
    return Value((float(number),))


def billions(text: str) -> str:
    """``34.60`` billion in full, as a string of digits."""
    return str(round(float(text) * 1e9))


def final_value(final: list[dict[str, float | None]], key: str, scale: float = 1) -> Value | None:
    """``scale`` times a number that a stage's ledger ends with, one a seed; None where nothing was trained."""
    numbers = [number for last in final if (number := last[key]) is not None]
    return Value(tuple(scale * number for number in numbers)) if len(numbers) == len(final) else None


def budgets() -> str:
    """What the column of accumulated tokens holds, with the paper's own budgets beside."""
    return (
        "Accumulated tokens: of the run and of the runs it started from; a pretrained start counts as none. "
        + published_budgets()
    )


def published_budgets() -> str:
    printed = ", ".join(f"{scale} {published.tokens()[final]} B" for scale, (_, _, final) in published.SCALES.items())
    return f"Tokens of the paper's ProSparse runs, without the pretraining of their start: {printed} (Tables 6 and 7)."
