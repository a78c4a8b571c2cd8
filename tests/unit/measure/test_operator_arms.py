"""The arms of the operator measurement give the same results from the bytes they are said to read."""

from __future__ import annotations

import pytest
import torch

from prosparse.measure.operator_arms import PATTERNS, Memory, arms, last_level_cache, random_patterns

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
