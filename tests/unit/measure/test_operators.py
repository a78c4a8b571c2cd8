"""The layout of what the operator benchmark measures."""

from __future__ import annotations

import pytest
import torch

from prosparse.experiment.measurement import Operators
from prosparse.experiment.timings import OperatorsSpecification
from prosparse.measure.operator_arms import PATTERNS, Memory, random_patterns
from prosparse.measure.operators import Case, measure

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def memory():
    return Memory(1 << 20, torch.float32, CPU)


def test_the_warm_pattern_is_of_median_density():
    patterns = random_patterns(8, 20, 0.5)
    for pattern, row in enumerate(patterns.values):
        row[: pattern % 16] = 0
    case = Case({}, patterns, torch.float32, CPU)
    counts = (patterns.values > 0).sum(1)
    typical = counts[case.typical_pattern()]
    assert (counts <= typical).sum() >= PATTERNS / 2
    assert (counts >= typical).sum() >= PATTERNS / 2


def test_measures_every_shape_at_every_density():
    settings = Operators(shapes={"7B": (32, 96), "1B": (32, 96)}, densities=[1, 0.25], rounds=5, memory_limit=1 << 20)
    densities = {"7B": [1, 0.25], "1B": [0.5]}
    found = measure(OperatorsSpecification(settings=settings, densities=densities, trained={}))
    assert [(case["scale"], case["density"]) for case in found["cases"]] == [("7B", 1), ("7B", 0.25), ("1B", 0.5)]
    for case in found["cases"]:
        for name, cold in case["cold"].items():
            assert 0 < cold["microseconds"]["lower_quartile"] <= cold["microseconds"]["median"], name
        assert case["cold"]["stream"]["share_of_stream"]["median"] == 1
        assert set(case["cold"]["sparse_up"]["times_faster_than"]) == {"torch_up", "dense_up", "gathered_up"}
        assert "sparse_up" in case["warm"]
    # the dense times of a scale once, with its densest case
    assert ["dense_up" in case["warm"] for case in found["cases"]] == [True, False, True]


def test_ratios_are_between_the_calls_of_a_round(memory):
    case = Case({}, random_patterns(32, 96, 0.5), torch.float32, CPU)
    for name in case.arms:
        case.seconds[name] = [1.0, 1.0, 1.0]
        case.rates[name] = [1.0, 2.0, 3.0]
    case.seconds["torch_up"] = [3.0, 5.0, 40.0]
    case.rates["sparse_up"] = [0.5, 1.0, 3.0]
    cold = case.cold()
    assert cold["sparse_up"]["times_faster_than"]["torch_up"]["median"] == 5
    assert cold["sparse_up"]["share_of_stream"]["median"] == 0.5
