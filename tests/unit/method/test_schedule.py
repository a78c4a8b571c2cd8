"""lambda(t) against the paper's stage tables and as properties."""

import csv
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosparse.experiment.training import Stage
from prosparse.method.schedule import factor, stage_at
from prosparse.published.tables import DATA


def published_stages():
    """The stages of Tables 6 and 7: stage 0 and 1 constant, sine where the peak rises."""
    models: dict[str, list[Stage]] = {}
    for table in ("table6_stages_llama2", "table7_stages_minicpm"):
        with open(DATA / f"{table}.csv", newline="") as file:
            for row in csv.DictReader(file):
                if row["stage"] in ("decay", "sft"):
                    continue
                stages = models.setdefault(row["model"], [])
                peak = float(row["lambda"])
                rising = int(row["stage"]) >= 2 and peak > stages[-1].peak
                stages.append(
                    Stage(until=int(row["accumulated_steps"]), shape="sine" if rising else "constant", peak=peak)
                )
    return models


@pytest.mark.parametrize("model", ["7B", "13B", "1B"])
def test_published_schedule_at_every_boundary(model):
    stages = published_stages()[model]
    for index, stage in enumerate(stages):
        start = stages[index - 1].until if index else 0
        before = stages[index - 1].peak if index else 0.0
        assert factor(stages, stage.until) == pytest.approx(stage.peak, abs=1e-15)
        if stage.shape == "sine":
            middle = (start + stage.until) / 2
            assert factor(stages, middle) == pytest.approx((before + stage.peak) / 2, rel=1e-9)
            # a half sine leaves its start with slope zero: the first step is second order in 1/n
            n = stage.until - start
            expected = before + (1 - math.cos(math.pi / n)) / 2 * (stage.peak - before)
            assert factor(stages, start + 1) == pytest.approx(expected, rel=1e-9)
        else:
            assert factor(stages, start + 1) == stage.peak


def test_llama2_7b_values_from_the_paper():
    stages = published_stages()["7B"]
    assert [factor(stages, t) for t in (1, 5000, 5001, 6000, 12000)] == [0, 0, 5e-3, 5e-3, 5e-2]
    assert factor(stages, 8000) == pytest.approx(0.0275)
    assert factor(stages, 16500) == pytest.approx(0.2)


@st.composite
def schedules(draw):
    until, peak, stages = 0, 0.0, []
    for _ in range(draw(st.integers(1, 6))):
        until += draw(st.integers(1, 500))
        peak += draw(st.floats(0, 1))
        stages.append(Stage(until=until, shape=draw(st.sampled_from(["constant", "sine", "linear"])), peak=peak))
    return stages


@given(schedules())
def test_never_falls_stays_within_peaks_and_is_continuous_inside_ramps(stages):
    values = [factor(stages, t) for t in range(1, stages[-1].until + 1)]
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(values))
    assert all(0 <= v <= stages[-1].peak + 1e-12 for v in values)
    start, before = 0, 0.0
    for stage in stages:
        if stage.shape != "constant":
            n = stage.until - start
            steepest = (math.pi / 2 if stage.shape == "sine" else 1) / n * (stage.peak - before)  # the largest slope
            inside = [before, *values[start : stage.until]]
            assert all(b - a <= steepest + 1e-9 for a, b in pairwise(inside))
        start, before = stage.until, stage.peak


def test_ramps_from_zero_and_from_the_previous_peak():
    stages = [
        Stage(until=10, shape="linear", peak=1.0),
        Stage(until=20, peak=1.0),
        Stage(until=24, shape="linear", peak=3.0),
    ]
    assert [factor(stages, step) for step in (1, 5, 10, 20)] == pytest.approx([0.1, 0.5, 1, 1])
    assert [factor(stages, step) for step in (21, 22, 23, 24)] == [1.5, 2, 2.5, 3]
    rising = [Stage(until=4, shape="sine", peak=2.0)]
    # 1 - cos over half a period
    assert [factor(rising, step) for step in (1, 2, 4)] == pytest.approx([1 - math.sqrt(0.5), 1, 2])


def test_a_stage_with_a_target_has_no_lambda_of_its_own():
    stages = [Stage(until=10, peak=0.3), Stage(until=20, target_sparsity=0.9)]
    assert factor(stages, 10) == 0.3
    with pytest.raises(ValueError, match="step 11 belongs to stage 1, which steers lambda to a target sparsity"):
        factor(stages, 11)
    assert [stage_at(stages, step) for step in (1, 10, 11, 20)] == [(0, 0), (0, 0), (1, 10), (1, 10)]


@pytest.mark.parametrize("step", [0, -1, 11])
def test_outside_the_schedule_is_an_error(step):
    with pytest.raises(ValueError, match="outside"):
        factor([Stage(until=10)], step)
