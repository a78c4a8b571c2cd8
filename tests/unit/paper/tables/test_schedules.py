"""Schedules at equal sparsity: values, intervals, what is missing, and which method the notes name."""

from __future__ import annotations

import copy
import csv
import io
import math

import pytest
from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import cells_of

from prosparse.paper.results.needs import Needs
from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_csv, to_markdown


def density(peak):
    """Percent of active neurons of a constant run of the synthetic results' seed 1, by their formula."""
    return 100 * (1 - (0.83 + 0.08 * peak**0.5 + 0.001))


def test_losses_are_interpolated_between_a_methods_runs(synthetic):
    table = TABLES.build("schedules", synthetic.results)
    cells = cells_of(table, "Constant")
    # 87% lies between the runs with a factor of 0.1 and 0.4, whose losses are 3.522 and 3.582
    share = math.log(density(0.1) / 13) / math.log(density(0.1) / density(0.4))
    assert cells["loss_87"].ours.mean == pytest.approx(3.522 + 0.06 * share, abs=2e-6)
    assert cells["measured_sparsity"].text == "84.9 to 88.2"
    assert cells["tokens"].ours.mean == 180 * 8 * 256
    assert cells["comparison"].text == "shapes"
    layers = [100 - density(0.1) - 4 + share * (density(0.1) - density(0.4)), "layer 0"]
    assert cells["least_sparse_layer"].text == f"{layers[0]:.1f} (layer 0)"


def test_differences_are_from_the_reference(synthetic):
    table = TABLES.build("schedules", synthetic.results)
    constant, reference = cells_of(table, "Constant"), cells_of(table, "Progressive")
    expected = constant["loss_87"].ours.mean - reference["loss_87"].ours.mean
    number, _, interval = constant["difference_87"].text.partition(" ")
    assert float(number) == pytest.approx(expected, abs=5e-4)
    lower, upper = (float(each) for each in interval.strip("()").split(" to "))
    assert lower < float(number) < upper
    assert reference["difference_87"].text == "reference"


def test_outside_a_methods_range_is_missing_and_says_why(synthetic):
    table = TABLES.build("schedules", synthetic.results)
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(io.StringIO(to_csv(table)))}
    for row in ("Constant", "Progressive"):
        assert lines[row, "loss_89.5"]["ours"] == ""
        assert lines[row, "loss_89.5"]["note"] == "outside the measured sparsity"
    assert float(lines["Resumed", "loss_89.5"]["ours"]) == pytest.approx(3.5, abs=0.01)
    assert lines["Resumed", "difference_89.5"]["note"] == "outside the measured sparsity of the reference"
    assert "At 89.5%, fewer than two methods can be compared." in to_markdown(table)


def test_a_method_that_is_not_measured_is_missing_and_the_others_are_there(synthetic):
    synthetic.layout.sparsity("final-1", 1).unlink()
    table = TABLES.build("schedules", synthetic.results)
    cells = cells_of(table, "Resumed")
    assert {cells[f"loss_{at}"].note for at in ("85.5", "87", "89.5")} == {"not measured"}
    assert "| **Resumed** | ours | shapes | 122,880 | missing | missing | missing |" in to_markdown(table)
    assert cells_of(table, "Constant")["loss_87"].ours is not None


def test_dead_neurons_are_missing_until_they_are_measured(synthetic):
    table = TABLES.build("schedules", synthetic.results)
    assert {row.cells["dead_neurons"].ours for row in table.rows} == {None}
    for run in ("constant-0.05", "constant-0.1", "constant-0.4"):
        synthetic.edit(
            synthetic.layout.sparsity(run, 1),
            lambda value: [entry.update(dead_neurons=[0.1, 0.3] * 3) for entry in value["measurements"]],
        )
    table = TABLES.build("schedules", synthetic.results)
    assert cells_of(table, "Constant")["dead_neurons"].ours.mean == pytest.approx(20)
    assert cells_of(table, "Resumed")["dead_neurons"].ours is None


@pytest.mark.parametrize(
    ("deviation", "sentence"),
    [
        # at 87%: progressive 3.49, resumed 3.50, constant 3.55
        (0.0001, r"*Progressive* has the lowest loss, 0.0"),
        (0.02, "*Progressive* has the lowest loss; *Resumed* cannot be told apart from it (at most 0.0"),
        (1.0, "no method differs from the best, *Progressive*, by more than 2."),
        (None, "*Progressive* has the lowest loss, and one seed shows no interval"),
    ],
)
def test_the_notes_name_a_winner_only_where_the_intervals_do(tmp_path, deviation, sentence):
    raw = copy.deepcopy(CONFIG)
    raw["seed_deviation"] = None if deviation is None else {"loss": deviation, "sparsity": 0.05}
    table = TABLES.build("schedules", Synthetic(tmp_path / "deviation", raw).write().results)
    assert f"At 87%, {sentence}" in table.notes[0]
    if deviation == 0.0001:
        assert "nats/token below *Resumed*, the next. At 89.5%" in table.notes[0]
    if deviation == 0.02:
        assert "and the others lose more, *Constant* the least, 0.0" in table.notes[0]


def test_seeds_are_averaged_and_paired(several_seeds):
    cells = cells_of(TABLES.build("schedules", several_seeds.results), "Resumed")
    assert len(cells["loss_87"].ours.seeds) == 3
    assert "(no interval)" not in cells["difference_87"].text


@pytest.mark.parametrize("deviation", [None, {"loss": 0.0001, "sparsity": 0.05}])
def test_a_comparison_with_fewer_seeds_says_so(tmp_path, deviation):
    raw = {**CONFIG, "seeds": [1, 2, 3], "seed_deviation": deviation}
    synthetic = Synthetic(tmp_path / "seeds", raw).write()
    synthetic.layout.sparsity("progressive", 3).unlink()
    note = TABLES.build("schedules", synthetic.results).notes[0]
    assert "the reference is *Progressive*. Measured with 2 of 3 seeds. At 85.5%" in note
    synthetic.layout.sparsity("progressive", 1).unlink()
    table = TABLES.build("schedules", synthetic.results)
    assert len(cells_of(table, "Constant")["loss_87"].ours.seeds) == 1
    assert "Measured with 1 of 3 seeds." in table.notes[0]
    assert ("`seed_deviation`" in table.notes[0]) == (deviation is not None)


def test_an_experiment_without_comparisons_has_none(nothing):
    assert TABLES.needs("schedules", nothing.experiment) == Needs()
    table = TABLES.build("schedules", nothing.results)
    assert (table.rows, table.notes) == ([], ["Experiment `synthetic` has none."])


def test_nothing_is_measured_yet(synthetic):
    for run in ("constant-0.05", "vanilla", "final-3"):
        synthetic.layout.sparsity(run, 1).unlink()
    table = TABLES.build("schedules", synthetic.results)
    assert table.notes[0].endswith("the reference is *Progressive*. Fewer than two of its methods are measured.")
