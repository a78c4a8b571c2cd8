"""Stochastic rounding against float64: mean, neighbors, and draws that depend on nothing but key, row and column."""

import math

import pytest
import torch

from prosparse.method import rounding
from prosparse.method.rounding import add_sign, draw_key, draws

ROWS, COLUMNS = 512, 512
SCALE = 4.5e-7  # 0.005 / 11008, the paper's smallest lambda for 7B


def rounded(values, signs, scale=SCALE, key=0, first_row=0):
    """Each of ``values`` with every draw of a table: [n, ROWS, COLUMNS]."""
    words = draws(torch.tensor(key), torch.tensor(first_row), ROWS, COLUMNS)
    results = [
        add_sign(
            torch.full((ROWS, COLUMNS), value, dtype=values.dtype),
            torch.full((ROWS, COLUMNS), sign),
            torch.tensor(scale),
            *words,
        )
        for value, sign in zip(values.tolist(), signs.tolist(), strict=True)
    ]
    return torch.stack(results)


def nearest(values, scale=SCALE):
    return torch.addcmul(values, values.new_ones(()), torch.tensor(scale).to(values.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("direction", [1, -1])
def test_mean_is_the_increment_whatever_the_gradient(dtype, sign, direction):
    """Gradients as runs have them, from 1e-8 to 1e-2, and 0; rounding to nearest loses most increments."""
    values = torch.tensor([0.0, *(direction * 10 ** torch.linspace(-8, -2, 12)).tolist()]).to(dtype)
    found = (rounded(values, torch.full(values.shape, sign)).double() - values.double()[:, None, None]).mean((1, 2))
    expected = torch.full_like(found, sign * SCALE)
    # 262,144 draws: five standard errors of a Bernoulli variable between neighbors, and 2 % of the increment
    spacing = (torch.nextafter(values.abs(), values.new_tensor(torch.inf)) - values.abs()).double()
    spacing = spacing.clamp_min(torch.nextafter(torch.tensor(SCALE).to(dtype), values.new_tensor(1.0)).double() - SCALE)
    error = 5 * (spacing * SCALE / (ROWS * COLUMNS)).sqrt()
    assert ((found - expected).abs() <= 0.02 * SCALE + error).all(), found / SCALE
    assert (nearest(values) == values).any()


def test_mean_over_gradients_is_within_two_percent():
    """As a layer sees it: the mean effect over many elements and steps."""
    generator = torch.Generator().manual_seed(0)
    exponents = torch.empty(ROWS, COLUMNS).uniform_(-8, -2, generator=generator)
    values = (10**exponents * torch.randn(ROWS, COLUMNS, generator=generator).sign()).bfloat16()
    small = values.abs() < 1e-3  # larger ones vary more than they can be averaged over here
    signs = torch.randn(ROWS, COLUMNS, generator=generator).bfloat16()
    total = torch.zeros(ROWS, COLUMNS, dtype=torch.float64)
    for step in range(20):
        words = draws(torch.tensor(draw_key(0, step)), torch.tensor(0), ROWS, COLUMNS)
        total += add_sign(values, signs, torch.tensor(SCALE), *words).double() - values.double()
    assert (total * signs.sign() / 20)[small].mean().item() == pytest.approx(SCALE, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_sum_becomes_one_of_its_two_neighbors(dtype):
    generator = torch.Generator().manual_seed(1)
    values = (10 ** torch.empty(ROWS, COLUMNS).uniform_(-7, 4, generator=generator)).to(dtype)
    signs = torch.randn(ROWS, COLUMNS, generator=generator)
    scale = torch.tensor(3e-3)
    found = add_sign(values, signs, scale, *draws(torch.tensor(3), torch.tensor(0), ROWS, COLUMNS))
    exact = values.float() + scale * signs.sign()
    assert found.dtype == dtype
    up, down = (torch.nextafter(found, found.new_tensor(end)).float() for end in (torch.inf, -torch.inf))
    assert ((down < exact) & (exact < up)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_needs_no_rounding_stays_as_it_is(dtype):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype).view(256, 256)  # every number of the type, infinities and NaNs included
    words = draws(torch.tensor(5), torch.tensor(0), 256, 256)
    for signs, scale in ((torch.zeros(256, 256), 1.0), (torch.ones(256, 256), 0.0)):
        found = add_sign(values, signs, torch.tensor(scale), *words)
        assert torch.equal(found.nan_to_num(nan=1.5), values.nan_to_num(nan=1.5))
        assert torch.equal(found.isnan(), values.isnan())
    found = add_sign(values, torch.ones(256, 256), torch.tensor(SCALE), *words)
    for special in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(special(found), special(values))


def words_of(key, first_row, rows=ROWS):
    row, column = draws(torch.tensor(key), torch.tensor(first_row), rows, COLUMNS)
    return row ^ column


def test_draws_are_uniform_and_pairwise_independent():
    words = words_of(draw_key(1, 2, 3), 0).double() / 2**16
    count = words.numel()
    assert words.mean().item() == pytest.approx(0.5, abs=0.003)
    assert words.var().item() == pytest.approx(1 / 12, rel=0.01)
    counts = torch.histc(words.float(), 16, 0, 1)
    assert (counts - count / 16).abs().max() < 0.02 * count / 16
    centered = words - 0.5
    for other in (centered.roll(1, 0), centered.roll(1, 1), centered.roll((1, 1), (0, 1))):
        assert abs((centered * other).mean().item()) < 5 / 12 / math.sqrt(ROWS)


def test_draws_depend_on_key_row_and_column_alone():
    whole = words_of(7, 0)
    assert torch.equal(torch.cat([words_of(7, start, 128) for start in range(0, ROWS, 128)]), whole)
    for other in (words_of(8, 0), words_of(7, ROWS)):
        assert (other == whole).float().mean() < 0.01
    keys = {draw_key(seed, step, layer) for seed in range(5) for step in range(50) for layer in range(40)}
    assert len(keys) == 5 * 50 * 40
    assert min(keys) >= 0
    assert max(keys) < 2**32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_slices_and_compiled_code_round_as_the_whole(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(2)
    values, signs = (torch.randn(100, 60, generator=generator).to(dtype) for _ in range(2))
    words = draws(torch.tensor(9), torch.tensor(0), 100, 60)
    whole = rounding._add_sign(values, signs, torch.tensor(1e-4), *words)
    monkeypatch.setattr(rounding, "_CACHED", 60 * 7)
    assert torch.equal(add_sign(values, signs, torch.tensor(1e-4), *words), whole)
    compiled = torch.compile(add_sign, backend="aot_eager")
    assert torch.equal(compiled(values, signs, torch.tensor(1e-4), *words), whole)
