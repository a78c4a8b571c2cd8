"""The operators on Q8_0 and Q4_0 weights against the float64 reference, with each instruction set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from helpers.quantized_cases import (
    DENSITIES,
    SHAPES,
    assert_matches_reference,
    case_of,
    digest,
    extreme_cases,
    ffn_arguments,
)
from helpers.repository import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from prosparse import operators
from prosparse.operators import interface, quantized, reference
from prosparse.operators.quantized import FORMATS, Q4_0, Q8_0

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
EACH_FORMAT = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])


@pytest.fixture(params=(1, 2, 5), ids=lambda number: f"threads{number}")
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@EACH_FORMAT
@EACH_DTYPE
@pytest.mark.parametrize("density", DENSITIES)
def test_matches_the_reference(density, dtype, form):
    for number, (hidden, intermediate) in enumerate(SHAPES):
        assert_matches_reference(case_of(form, dtype, 1 + number % 8, hidden, intermediate, density))


@EACH_FORMAT
@EACH_DTYPE
def test_extreme_values(dtype, form):
    for case in extreme_cases(form, dtype):
        assert_matches_reference(case)


@EACH_FORMAT
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_large_enough_for_several_threads(batch, form, threads):
    """And for sums that are flushed: more rows than 32 bits hold."""
    assert_matches_reference(case_of(form, torch.bfloat16, batch, 96, 5000, 0.97))


@EACH_FORMAT
def test_the_largest_sums_do_not_overflow(form):
    """Every factor and every integer is the largest there is."""
    rows, hidden = 6000, 64
    weight = torch.full((rows, hidden), -8.0 if form is Q4_0 else 127.0)
    packed = quantized.quantize(weight, form)
    x1 = torch.ones(1, rows)
    found = operators.sparse_down(x1, packed)
    torch.testing.assert_close(found, x1 @ weight, rtol=1e-4, atol=0)


@EACH_FORMAT
@given(
    batch=st.integers(1, 8),
    blocks=st.integers(1, 40),
    intermediate=st.integers(1, 300),
    density=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=25, deadline=None)
def test_every_shape(form, batch, blocks, intermediate, density, dtype):
    assert_matches_reference(case_of(form, dtype, batch, 32 * blocks, intermediate, density))


@EACH_FORMAT
@EACH_DTYPE
def test_dense_and_sparse_agree_bit_for_bit_and_tokens_do_not_meet(dtype, form, threads):
    case = case_of(form, dtype, 5, 544, 1031, 0.3)
    rectified = [each(*ffn_arguments(case), relu_up=True) for each in (operators.sparse_ffn, operators.dense_ffn)]
    assert torch.equal(*rectified)
    sparse, dense = operators.sparse_ffn(*ffn_arguments(case)), operators.dense_ffn(*ffn_arguments(case))
    assert torch.equal(sparse, dense)
    assert not torch.equal(sparse, rectified[0])
    gates = operators.linear(case.x, case.up_weight)
    for token in range(5):
        one = slice(token, token + 1)
        alone = operators.sparse_ffn(case.x[one], case.gate[one], case.up_weight, case.down, case.threshold)
        assert torch.equal(alone, sparse[one])
        assert torch.equal(operators.linear(case.x[one], case.up_weight), gates[one])


@EACH_FORMAT
@EACH_DTYPE
def test_given_scales_save_a_search_and_change_nothing(dtype, form, threads):
    for case in [case_of(form, dtype, 5, 544, 1031, 0.3), *extreme_cases(form, dtype)]:
        scales = quantized.largest_scales(case.down)
        for operator in (operators.sparse_ffn, operators.dense_ffn):
            torch.testing.assert_close(
                operator(*ffn_arguments(case), scales), operator(*ffn_arguments(case)), rtol=0, atol=0, equal_nan=True
            )
        down = operators.sparse_down(case.gate, case.down, scales)
        torch.testing.assert_close(down, operators.sparse_down(case.gate, case.down), rtol=0, atol=0, equal_nan=True)


@EACH_FORMAT
def test_rows_may_lie_between_others(form):
    """As in a decoder, where a neuron's rows of up and down are adjacent."""
    case = case_of(form, torch.float32, 2, 96, 40, 0.5)
    both = torch.stack([case.up_weight, case.down], dim=1)
    found = operators.sparse_ffn(case.x, case.gate, both[:, 0], both[:, 1], case.threshold)
    assert torch.equal(found, operators.sparse_ffn(*ffn_arguments(case)))


@EACH_FORMAT
def test_ggmls_rounded_product(form):
    """Against ggml's definition of a product, block by block in Python integers."""
    generator = torch.Generator().manual_seed(3)
    x, weight = torch.randn(1, 64, generator=generator), torch.randn(1, 64, generator=generator)
    packed = quantized.quantize(weight, form)
    total = 0.0
    for block in range(2):
        part = x[0, 32 * block : 32 * block + 32]
        scale = float(part.abs().max()) / 127
        rounded = [round(float(value) / scale) for value in part]
        integers = quantized.integers(packed)[0, 32 * block : 32 * block + 32].tolist()
        product = sum(a * b for a, b in zip(rounded, integers, strict=True))
        total += product * scale * float(quantized.scales(packed)[0, block])
    torch.testing.assert_close(operators.linear(x, packed), torch.tensor([[total]]), rtol=1e-5, atol=1e-6)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import torch
from helpers.quantized_cases import assert_matches_reference, case_of, digest, extreme_cases
from prosparse.operators.quantized import FORMATS
for form in FORMATS.values():
    for dtype in (torch.bfloat16, torch.float32):
        more = case_of(form, dtype, 3, 544, 1031, 0.4), case_of(form, dtype, 1, 96, 7, 1)
        for case in [*extreme_cases(form, dtype), *more]:
            assert_matches_reference(case)
print(torch.ops.prosparse.instruction_set(), digest())
"""


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_instruction_sets(capability):
    """They also sum rows to the same bits."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(ROOT / "workflow")}
    program = PROGRAM.format(tests=str(ROOT / "tests"))
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    name, bits = finished.stdout.split()
    assert name in ("baseline", capability)
    assert bits == digest()


@EACH_FORMAT
def test_torch_knows_the_operators(form):
    case = case_of(form, torch.bfloat16, 2, 96, 40, 0.5)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(operators.sparse_ffn, ffn_arguments(case), test_utils=checks)
    torch.library.opcheck(operators.dense_ffn, ffn_arguments(case), test_utils=checks)
    torch.library.opcheck(operators.sparse_up, (*ffn_arguments(case)[:3], case.threshold), test_utils=checks)
    torch.library.opcheck(operators.sparse_down, (case.gate, case.down), test_utils=checks)
    scales = quantized.largest_scales(case.down)
    torch.library.opcheck(operators.sparse_down, (case.gate, case.down, scales), test_utils=checks)
    torch.library.opcheck(operators.dense_ffn, (*ffn_arguments(case), scales), test_utils=checks)
    torch.library.opcheck(operators.sparse_ffn, ffn_arguments(case), {"relu_up": True}, test_utils=checks)
    torch.library.opcheck(operators.linear, (case.x, case.up_weight), test_utils=checks)
    torch.library.opcheck(operators.linear, (case.x, case.up_weight, case.gate, 0.1), test_utils=checks)


def test_bad_arguments():
    case = case_of(Q4_0, torch.bfloat16, 1, 96, 40, 0.5)
    other = case_of(Q8_0, torch.bfloat16, 1, 96, 40, 0.5)
    for module in (operators, reference_with_checks()):
        with pytest.raises(ValueError, match=r"x.shape.1. is 64, but up_weight's columns is 96"):
            module.sparse_up(case.x[:, :64], case.gate, case.up_weight, 0.0)
        with pytest.raises(ValueError, match="rows of 53 bytes, not a multiple of a block's 18"):
            module.linear(case.x, case.up_weight[:, 1:])
        scales = quantized.largest_scales(case.down)
        for bad in (scales[:39], scales.double(), scales[None]):
            with pytest.raises(ValueError, match="largest_scales must be float32, contiguous, one for each row"):
                module.sparse_down(case.gate, case.down, bad)
        with pytest.raises(ValueError, match="largest_scales are for weights in Q8_0 and Q4_0"):
            module.sparse_ffn(case.x, case.gate, *[torch.ones(40, 96, dtype=torch.bfloat16)] * 2, 0.0, scales)
        with pytest.raises(ValueError, match="one of bfloat16, float16 and float32 is needed"):
            module.sparse_down(case.down[:1], case.down)
        with pytest.raises(ValueError, match=r"shape.0. is 39, but up_weight.shape.0. is 40"):
            module.sparse_ffn(case.x, case.gate, case.up_weight, case.down[:39], 0.0)
    with pytest.raises(ValueError, match="the same for all"):
        interface.check_ffn(case.x, case.gate, case.up_weight, case.down.to(torch.bfloat16), 0.0)
    with pytest.raises(ValueError, match="the same dtype"):
        operators.sparse_ffn(case.x, case.gate, case.up_weight, case.down.to(torch.bfloat16), 0.0)
    with pytest.raises(ValueError, match="the same"):
        operators.sparse_ffn(case.x, case.gate, case.up_weight, other.down, 0.0)


def reference_with_checks():
    """The fakes' checks, under the operators' names."""

    class Checks:
        sparse_up = staticmethod(interface.check_up)
        sparse_down = staticmethod(interface.check_down)
        sparse_ffn = staticmethod(interface.check_ffn)
        linear = staticmethod(interface.check_linear)

    return Checks


@EACH_FORMAT
def test_rounding_the_input_is_a_small_part_of_the_error(form):
    """Against the product of the values before anything was rounded."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 4096, generator=generator), torch.randn(256, 4096, generator=generator)
    packed, exact = quantized.quantize(weight, form), x.double() @ weight.double().T
    of_weights = (x.double() @ quantized.dequantize(packed, torch.float64).T - exact).norm()
    of_both = (reference.linear(x, packed).double() - exact).norm()
    assert of_both <= of_weights * (1.05 if form is Q4_0 else 1.6)
