"""The operator benchmark: that its arms do the same work, on cold weights, and that it counts bytes as they are."""

from __future__ import annotations

import pytest
import torch

from prosparse.experiment.measurement import Operators
from prosparse.experiment.timings import OperatorsSpecification
from prosparse.measure.operator_arms import PATTERNS, Memory, arms, last_level_cache, random_patterns
from prosparse.measure.operators import Case, measure

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def memory():
    return Memory(1 << 20, torch.float32, CPU)


@pytest.mark.parametrize("density", [1.0, 0.5, 0.107, 0.05])
def test_random_patterns_have_their_density_and_differ(density):
    patterns = random_patterns(64, 1000, density)
    assert patterns.shape == (64, 1000)
    assert len(patterns.values) == PATTERNS
    assert ((patterns.values > 0).sum(1) == round(1000 * density)).all()
    assert (patterns.values >= 0).all()
    if density < 1:
        assert len({tuple(row.nonzero().flatten().tolist()) for row in patterns.values}) == PATTERNS


def test_arms_of_a_step_give_the_same(memory):
    patterns = random_patterns(64, 1000, 0.1)
    found = arms(patterns, torch.float32, CPU)
    up, down = memory.weight(1000, 64), memory.weight(1000, 64)
    for pattern in (0, 3):
        s = patterns.values[pattern]
        x1 = found["sparse_up"].call(pattern, up, down)
        assert torch.equal(x1[0] != 0, s > 0)
        torch.testing.assert_close(found["gathered_up"].call(pattern, up, down), x1)
        torch.testing.assert_close(found["torch_up"].call(pattern, up, down) * s, x1)
        torch.testing.assert_close(found["dense_up"].call(pattern, up, down) * s, x1)
        y = found["sparse_down"].call(pattern, down, up)
        torch.testing.assert_close(found["gathered_down"].call(pattern, down, up), y)
        torch.testing.assert_close(y, s[None] @ down)
        both = found["sparse_ffn"].call(pattern, up, down)
        torch.testing.assert_close(both, x1 @ down)
        interleaved = torch.cat([up, down], dim=1)
        torch.testing.assert_close(found["sparse_ffn_side_by_side"].call(pattern, interleaved, down), both)


def test_bytes_are_those_of_the_active_rows():
    found = arms(random_patterns(64, 1000, 0.1), torch.bfloat16, CPU)
    assert found["sparse_up"].bytes(0) == found["rows"].bytes(0) == found["stream"].bytes(0) == 100 * 64 * 2
    assert found["torch_down"].bytes(0) == 1000 * 64 * 2
    for name in ("sparse_ffn", "sparse_ffn_side_by_side", "rows_both", "stream_both"):
        assert found[name].bytes(0) == 2 * 100 * 64 * 2


def test_weights_come_round_only_after_all_the_memory(memory):
    starts = [memory.weight(100, 64).data_ptr() for _ in range(memory.size // (100 * 64 * 4))]
    assert len(set(starts)) == len(starts)


def test_last_level_cache_is_plausible():
    assert 1 << 17 <= last_level_cache(CPU) <= 1 << 33


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
