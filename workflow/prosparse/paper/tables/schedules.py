"""Schedules of λ and of the learning rate at equal sparsity. Ours, not the paper's."""

from __future__ import annotations

from collections.abc import Mapping

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import tokens
from prosparse.experiment.schedules import Comparison
from prosparse.paper.results import matched
from prosparse.paper.results.matched import MATCHED, Method
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value, exact
from prosparse.paper.statistics.estimate import Estimate
from prosparse.paper.tables.columns import layer_cells
from prosparse.paper.tables.notes import count
from prosparse.paper.tables.table import Cell, Column, Row, Table

COMPARISON = Column("comparison", "Comparison", "")
TOKENS = Column("tokens", "Tokens", "tokens", 0)
DIGITS = 3


def needs(experiment: Experiment) -> Needs:
    return Needs.of_heldout(experiment, experiment.schedules.pairs())


def build(results: Results) -> Table:
    experiment, chosen = results.experiment, results.experiment.schedules
    middle = _middle(chosen.sparsities)
    columns = [
        COMPARISON,
        TOKENS,
        Column("measured_sparsity", "Measured sparsity", "%", 1),
        *(
            column
            for at in chosen.sparsities
            for column in (
                Column(f"loss_{at:g}", f"Loss at {at:g}%", "nats/token", DIGITS),
                Column(f"difference_{at:g}", f"vs. reference at {at:g}%", "nats/token", DIGITS),
            )
        ),
        Column("dead_neurons", f"Dead neurons at {middle:g}%", "%", 1),
        Column("least_sparse_layer", f"Least sparse layer at {middle:g}%", "%", 1),
    ]
    table = Table("schedules", "Schedules at equal sparsity", columns, row_title="Method")
    if not chosen.comparisons:
        table.note(f"Experiment `{experiment.experiment}` has none.")
        return table
    for name, comparison in chosen.comparisons.items():
        found = matched.methods(results, comparison)
        differences = {at: matched.differences(found, comparison.reference, at) for at in chosen.sparsities}
        table.rows += [_row(results, name, method, found, differences) for method in comparison.methods]
        seeds = _seeds(results, comparison)
        table.note(
            f"{name}: {comparison.title}; the reference is *{comparison.reference}*.{seeds} {_verdict(results, found)}"
        )
    table.notes += [
        "Each method's runs differ in λ. Its loss, dead neurons and layers at a sparsity are interpolated between the "
        "two neighboring runs, linearly in the logarithm of the density. They are missing if the "
        f"sparsity is more than {MATCHED:g} points outside the measured range, or if a run has not been measured.",
        "Loss: held-out, mean over seeds (standard deviation, if there are several).",
        "Differences are paired by held-out sequence and by seed, with their 95% intervals. Each interval covers one "
        "comparison; they are not corrected for the number of comparisons.",
        "Tokens: of each run, without those of its base. Dead neurons: mean over layers. Layers count from 0.",
        "Ours, not the paper's: the paper compares one schedule with constant factors (Table 5).",
        f"Experiment `{experiment.experiment}`, {count(len(experiment.seeds), 'seed')}.",
    ]
    return table


def _seeds(results: Results, comparison: Comparison) -> str:
    """Say how many seeds a comparison has, if not all."""
    measured, seeds = matched.measured_seeds(results, comparison), results.experiment.seeds
    if len(measured) == len(seeds):
        return ""
    said = f" Measured with {len(measured)} of {len(seeds)} seeds."
    is_assumed = len(measured) == 1 and results.experiment.seed_deviation is not None
    return said + " The intervals assume the deviation over seeds in `seed_deviation`." if is_assumed else said


def _middle(sparsities: list[float]) -> float:
    return sparsities[len(sparsities) // 2]


def _row(
    results: Results,
    name: str,
    method: str,
    found: Mapping[str, Method],
    differences: Mapping[float, Mapping[str, Estimate]],
) -> Row:
    """Return a method's row; ``differences`` from the reference are by sparsity and method."""
    experiment, chosen = results.experiment, results.experiment.schedules
    comparison, own = chosen.comparisons[name], found.get(method)
    runs = [experiment.pair(pair)[0] for pair in comparison.methods[method]]
    amounts = {tokens(experiment, run) for run in runs}
    fewest, most = min(amounts), max(amounts)
    cells = {
        COMPARISON.key: Cell(text=name),
        TOKENS.key: Cell(exact(most)) if fewest == most else Cell(text=f"{fewest:,} to {most:,}"),
        "measured_sparsity": Cell(text="{:.1f} to {:.1f}".format(*own.range)) if own is not None else Cell(),
    }
    for at in chosen.sparsities:
        loss = own.loss_at(at) if own is not None else None
        if own is None or loss is None:
            note = "not measured" if own is None else "outside the measured sparsity"
            cells[f"loss_{at:g}"] = cells[f"difference_{at:g}"] = Cell(note=note)
            continue
        cells[f"loss_{at:g}"] = Cell(Value(tuple(loss.by_seed)))
        difference = differences[at].get(method)
        if method == comparison.reference:
            cells[f"difference_{at:g}"] = Cell(text="reference")
        else:
            text = _interval(difference, sign=True) if difference is not None else ""
            cells[f"difference_{at:g}"] = Cell(
                text=text, note="" if text else "outside the measured sparsity of the reference"
            )
    return Row(method, cells | _layers(own, _middle(chosen.sparsities)), is_published=False)


def _layers(method: Method | None, at: float) -> dict[str, Cell]:
    """Return the cells about single layers."""
    layers = method.layers_at(at) if method is not None else None
    dead = method.dead_at(at) if method is not None else None
    return layer_cells(layers, dead)


def _verdict(results: Results, found: Mapping[str, Method]) -> str:
    """Say at every sparsity which method loses least, and how far the others are from it."""
    if len(found) < 2:
        return "Fewer than two of its methods are measured."
    return " ".join(f"At {at:g}%, {_winner(found, at)}." for at in results.experiment.schedules.sparsities)


def _winner(found: Mapping[str, Method], at: float) -> str:
    best = matched.best(found, at)
    others = matched.differences(found, best, at) if best is not None else {}
    if best is None or not others:
        return "fewer than two methods can be compared"
    if not all(other.known for other in others.values()):
        return f"*{best}* has the lowest loss, and one seed shows no interval"
    apart = {name: other for name, other in others.items() if other.lower > 0}
    near = max((other.upper for name, other in others.items() if name not in apart), default=0.0)
    if not apart:
        return f"no method differs from the best, *{best}*, by more than {near:.{DIGITS}f} nats/token"
    nearest = min(apart, key=lambda name: apart[name].mean)
    gap = f"{_interval(apart[nearest])} nats/token"
    if len(apart) == len(others):
        return f"*{best}* has the lowest loss, {gap} below *{nearest}*, the next"
    equals = ", ".join(f"*{name}*" for name in others if name not in apart)
    return (
        f"*{best}* has the lowest loss; {equals} cannot be told apart from it (at most {near:.{DIGITS}f} "
        f"nats/token more), and the others lose more, *{nearest}* the least, {gap}"
    )


def _interval(difference: Estimate, sign: bool = False) -> str:
    return difference.show(DIGITS, sign).replace("95% interval ", "")
