"""Methods at equal sparsity, against a case computed by hand."""

from __future__ import annotations

import math

import pytest

from prosparse.paper.results import matched


def methods(synthetic):
    return matched.methods(synthetic.results, synthetic.experiment.schedules.comparisons["shapes"])


@pytest.fixture
def by_hand(synthetic):
    """Constant: 80, 90 and 95% at losses 3, 3.1 and 3.3; progressive: 80 and 95% at 3.2 and 3.4."""
    for run, activation, sparsity, loss in (
        ("constant-0.05", "relu", 0.80, 3.0),
        ("constant-0.1", "relu", 0.90, 3.1),
        ("constant-0.4", "relu", 0.95, 3.3),
        ("vanilla", "fatrelu-0.01", 0.80, 3.2),
        ("progressive", "relu", 0.95, 3.4),
    ):
        change(synthetic, run, activation, sparsity, loss)
    return methods(synthetic)


def change(synthetic, run, activation, sparsity, loss):
    def edit(value):
        for entry in value["measurements"]:
            if entry["activation"] == activation:
                for corpus in entry["corpora"].values():
                    corpus["sequences"] = {"sparsity": [sparsity] * 8, "loss": [loss] * 8}
                entry["layer_sparsity"] = [sparsity - 0.01, sparsity + 0.01]
                entry["dead_neurons"] = [sparsity / 2, sparsity / 4]

    synthetic.edit(synthetic.layout.sparsity(run, 1), edit)


def test_loss_is_interpolated_over_the_logarithm_of_the_density(by_hand):
    # between densities 10 and 5, 7.5% is log(10 / 7.5) / log(2) of the way
    share = math.log(10 / 7.5) / math.log(2)
    assert by_hand["Constant"].loss_at(92.5).mean == pytest.approx(3.1 + share * 0.2)
    assert by_hand["Constant"].loss_at(90).mean == pytest.approx(3.1)
    assert by_hand["Constant"].range == pytest.approx((80, 95))


def test_layers_and_dead_neurons_are_interpolated_likewise(by_hand):
    share = math.log(20 / 15) / math.log(2)
    layers = [value.mean for value in by_hand["Constant"].layers_at(85)]
    assert layers == pytest.approx([79 + 10 * share, 81 + 10 * share])
    dead = [value.mean for value in by_hand["Constant"].dead_at(85)]
    assert dead == pytest.approx([40 + 5 * share, 20 + 2.5 * share])


def test_differences_are_between_methods_at_the_same_sparsity(by_hand):
    share = math.log(20 / 10) / math.log(20 / 5)  # of progressive's only interval
    found = matched.differences(by_hand, "Progressive", 90)
    assert found["Constant"].mean == pytest.approx(3.1 - (3.2 + 0.2 * share))
    assert "Progressive" not in found
    assert matched.best({name: by_hand[name] for name in ("Constant", "Progressive")}, 90) == "Constant"


def test_half_a_point_outside_still_matches(by_hand):
    share = math.log(20 / 20.4) / math.log(2)  # below 0
    assert by_hand["Constant"].loss_at(79.6).mean == pytest.approx(3 + 0.1 * share)
    share = math.log(10 / 4.6) / math.log(2)  # above 1
    assert by_hand["Constant"].loss_at(95.4).mean == pytest.approx(3.1 + 0.2 * share)


@pytest.mark.parametrize("sparsity", [79.4, 95.6])
def test_further_outside_the_measured_range_there_is_nothing(by_hand, sparsity):
    constant = by_hand["Constant"]
    found = (constant.loss_at(sparsity), constant.layers_at(sparsity), constant.dead_at(sparsity))
    assert found == (None, None, None)
    assert matched.differences(by_hand, "Constant", sparsity) == {}
    assert matched.best({"Constant": constant}, sparsity) is None


def test_measurements_without_dead_neurons_say_nothing_about_them(synthetic):
    assert methods(synthetic)["Constant"].dead_at(86) is None


def test_a_method_with_a_pair_that_is_not_measured_is_left_out(synthetic):
    synthetic.layout.sparsity("final-1", 1).unlink()
    assert methods(synthetic).keys() == {"Constant", "Progressive"}


def test_an_interval_covers_seeds_and_sequences(several_seeds):
    """Seeds add the same to every method's loss, so that only sequences and the spread of sparsity are left."""
    difference = matched.differences(methods(several_seeds), "Progressive", 87)["Constant"]
    assert difference.known
    assert 0 < difference.half_width < 0.01


def test_a_comparison_has_the_seeds_of_its_reference(several_seeds):
    """Seed 3 of the reference is missing; so is seed 2 of another method, which is left out."""
    several_seeds.layout.sparsity("progressive", 3).unlink()
    several_seeds.layout.sparsity("final-1", 2).unlink()
    comparison = several_seeds.experiment.schedules.comparisons["shapes"]
    assert matched.measured_seeds(several_seeds.results, comparison) == [1, 2]
    found = methods(several_seeds)
    assert found.keys() == {"Constant", "Progressive"}
    whole = matched.Method.of(several_seeds.results, comparison.methods["Constant"]).loss_at(87).by_seed
    assert found["Constant"].loss_at(87).by_seed == whole[:2]


def test_without_the_reference_a_comparison_has_all_seeds(several_seeds):
    for seed in (1, 2, 3):
        several_seeds.layout.sparsity("progressive", seed).unlink()
    assert len(methods(several_seeds)["Constant"].loss_at(87).by_seed) == 3
