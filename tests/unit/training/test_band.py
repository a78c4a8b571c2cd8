"""Stages that stop when sparsity leaves the band that is expected of it."""

from __future__ import annotations

import statistics

import pytest
import torch
from helpers.tiny_training import ledger, specification, weights

from prosparse.experiment.training import Stage
from prosparse.training.band import OutOfBand
from prosparse.training.job import StageJob
from prosparse.training.stage import train_stage

STAGES = [Stage(until=20, peak=2.0)]


def run(data, output, band, spec=None, previous=None):
    spec = spec or specification(STAGES, log_every=1)
    train_stage(StageJob(spec, data / "tokens", data / "tokenizer", previous, output, expected_sparsity=band))
    return output


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("band") / "whole", None)


def smoothed(rows, step):
    """Mean over the last tenth of 20 steps."""
    return statistics.fmean(row["sparsity"] for row in rows if step - 2 < row["step"] <= step)


def steps_done(output):
    return int(ledger(output / "resume")[-1]["step"])


def test_a_band_that_holds_changes_nothing(data, whole, tmp_path):
    rows = ledger(whole)
    inside = [smoothed(rows, step) for step in range(11, 21)]
    assert rows[0]["sparsity"] < min(inside) - 1e-3  # the first half, which is not judged, lies outside
    found = run(data, tmp_path / "found", (min(inside) - 1e-9, max(inside) + 1e-9))
    for name, weight in weights(whole).items():
        assert torch.equal(weights(found)[name], weight), name


@pytest.mark.parametrize("step", [11, 15])
def test_it_stops_a_step_after_the_first_row_outside_and_keeps_it(data, whole, tmp_path, step):
    """Every row of the second half up to ``step`` lies inside: the band's upper end is just below the one at it."""
    rows = ledger(whole)
    values = {each: smoothed(rows, each) for each in range(11, 21)}
    first = next(each for each in values if values[each] >= values[step])
    band = (0.0, values[step] - 1e-9)
    with pytest.raises(OutOfBand, match=f"steps {first - 1} to {first}, outside the stage's expected_sparsity, 0% to"):
        run(data, tmp_path / "found", band)
    assert (tmp_path / "found/resume" / f"checkpoint-{first + 1}").exists()
    assert not (tmp_path / "found/provenance.json").exists()
    assert steps_done(tmp_path / "found") == first + 1
    # another band: the rest is trained, and equals an uninterrupted stage
    found = run(data, tmp_path / "found", (0.0, 1.0))
    for name, weight in weights(whole).items():
        assert torch.equal(weights(found)[name], weight), name


def test_the_same_band_refuses_again_without_training(data, whole, tmp_path):
    low = (0.999, 1.0)
    for _ in range(2):
        with pytest.raises(OutOfBand, match="λ is too small"):
            run(data, tmp_path / "found", low)
        assert steps_done(tmp_path / "found") == 12


def test_the_last_step_is_judged_and_kept(data, whole, tmp_path):
    """Rows are rare: only the last lies in the second half."""
    with pytest.raises(OutOfBand, match=r"sparsity is [0-9.]+% in steps 19 to 20, .* λ is too large"):
        run(data, tmp_path / "found", (0.0, 0.01), specification(STAGES, log_every=50))
    assert (tmp_path / "found/resume/checkpoint-20").exists()
    found = run(data, tmp_path / "found", (0.0, 1.0), specification(STAGES, log_every=50))
    for name, weight in weights(whole).items():
        assert torch.equal(weights(found)[name], weight), name


def test_a_steered_lambda_is_not_blamed(data, tmp_path):
    stages = [Stage(until=20, target_sparsity=0.9)]
    with pytest.raises(OutOfBand, match="λ is steered to 90%"):
        run(data, tmp_path / "found", (0.999, 1.0), specification(stages, log_every=1))


def test_a_later_stage_is_judged_by_its_own_steps(data, tmp_path):
    """Steps 11 to 20: the middle is passed at step 16."""
    stages = [Stage(until=10), Stage(until=20, peak=2.0)]
    first = run(data, tmp_path / "first", None, specification(stages[:1], log_every=1))
    with pytest.raises(OutOfBand, match="in step 16, "):
        run(data, tmp_path / "second", (0.0, 0.01), specification(stages, log_every=1), first)
