"""Runs steered to a target: what they reach, against ledgers and measurements written by hand."""

from __future__ import annotations

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.results.needs import Needs
from prosparse.paper.tables.registry import TABLES

LEDGER = """step,tokens,lambda,lm_loss,l1,l_reg_ratio,sparsity,learning_rate,tokens_per_second
1,1,0,3.6,0.1,0.01,0.60,1e-3,9000
90,90,0.4,3.6,0.1,0.01,0.70,1e-3,9000
91,91,0.5,3.6,0.1,0.01,0.889,1e-3,9000
92,92,0.5,3.6,0.1,0.01,0.905,1e-3,9000
94,94,0.6,3.6,0.1,0.01,0.913,1e-3,9000
96,96,0.6,3.6,0.1,0.01,0.893,1e-3,9000
98,98,0.7,3.6,0.1,0.01,0.880,1e-3,9000
100,100,0.7,3.6,0.1,0.01,{last},1e-3,9000
"""


@pytest.fixture
def steered(tmp_path):
    """Two seeds of the run with a target of 90%; its stage has steps 0 to 100."""
    raw = {**CONFIG, "seeds": [1, 2], "seed_deviation": None}
    synthetic = Synthetic(tmp_path / "steered", raw).write()
    for seed, last in ((1, 0.92), (2, 0.946)):
        synthetic.layout.ledger("steered", 0, seed).write_text(LEDGER.format(last=last), encoding="utf-8")
    return synthetic


def test_what_a_run_reaches_and_how_far_it_swings(steered):
    for seed, sparsity in ((1, 0.904), (2, 0.898)):

        def edit(value, sparsity=sparsity):
            (entry,) = (entry for entry in value["measurements"] if entry["activation"] == "relu")
            entry |= {"sparsity": sparsity, "layer_sparsity": [0.95, 0.85], "dead_neurons": [0.02, 0.04]}

        steered.edit(steered.layout.sparsity("steered", seed), edit)
    (row,) = TABLES.build("target_sparsity", steered.results).rows
    cells = row.cells
    assert cells["deviation"].ours.seeds == pytest.approx((0.4, -0.2))
    # thirds 91 and 92, 94 and 96, 98 and 100: 89.7, 90.3, and 90.0 or 91.3; step 90 is in the ninth tenth
    assert cells["swing"].ours.seeds == pytest.approx((0.6, 1.6))
    finals = [provenance["final"]["lambda"] for provenance in steered.results.stage("steered", 0)]
    assert list(cells["lambda"].ours.seeds) == finals
    assert cells["dead_neurons"].ours.seeds == pytest.approx((3, 3))
    assert cells["least_sparse_layer"].text == "85.0 (layer 1)"


def test_fewer_than_three_logged_steps_have_no_swing(steered):
    for seed in (1, 2):
        ledger = steered.layout.ledger("steered", 0, seed)
        rows = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
        ledger.write_text("".join(rows[:-4]), encoding="utf-8")
    (row,) = TABLES.build("target_sparsity", steered.results).rows
    assert row.cells["swing"].ours is None
    assert row.cells["deviation"].ours is not None


def test_a_run_that_is_not_measured_is_missing_and_its_target_is_shown(steered):
    steered.layout.sparsity("steered", 2).unlink()
    (row,) = TABLES.build("target_sparsity", steered.results).rows
    assert row.cells["target_sparsity"].ours.mean == 90
    assert row.cells["held_out_loss"].note == "not measured"


def test_an_experiment_without_targets_has_none(nothing):
    assert TABLES.needs("target_sparsity", nothing.experiment) == Needs()
    table = TABLES.build("target_sparsity", nothing.results)
    assert (table.rows, table.notes) == ([], ["Experiment `synthetic` has none."])
