"""Q8_0 and Q4_0 against gguf's own conversion, and without loss."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from prosparse.operators import quantized
from prosparse.operators.quantized import FORMATS, Q4_0, Q8_0

EACH_FORMAT = pytest.mark.parametrize("to", FORMATS.values(), ids=FORMATS)


def weights(rows: int = 5, columns: int = 160) -> torch.Tensor:
    """Blocks of very different sizes, among them zeros and values whose scales are subnormal in float16."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, columns // 32, 32, generator=generator)
    values *= 10.0 ** torch.randint(-7, 4, (rows, columns // 32, 1), generator=generator)
    values[0, 0] = 0
    values[1, 1, 1:] = 0
    return values.flatten(1)


@EACH_FORMAT
def test_rounds_as_ggml_does(to):
    weight = weights()
    packed = quantized.quantize(weight, to)
    blocks = gguf.quants.quantize(weight.numpy(), to.ggml_type)
    assert packed.dtype == to.dtype
    assert packed.shape == (5, to.row_bytes(160))
    assert np.array_equal(quantized.to_blocks(packed).numpy(), blocks)
    expected = gguf.quants.dequantize(blocks, to.ggml_type)
    assert np.array_equal(quantized.dequantize(packed, torch.float32).numpy(), expected)
    assert torch.equal(quantized.dequantize(packed, torch.float64), torch.from_numpy(expected).double())
    assert quantized.columns(packed) == 160


@EACH_FORMAT
def test_error_of_a_value_is_at_most_half_a_step_and_the_scales_rounding(to):
    """A step is the largest value of the block over 127, or over 8, where the other end is one step nearer."""
    weight = weights(rows=64)
    blocks = weight.unflatten(1, (-1, 32))
    largest = blocks.abs().amax(2, keepdim=True)
    normal = largest[..., 0] / (127 if to is Q8_0 else 8) >= 2.0**-14  # the least normal float16
    error = (quantized.dequantize(quantized.quantize(weight, to), torch.float32).unflatten(1, (-1, 32)) - blocks).abs()
    allowed = largest * (0.5 / 127 if to is Q8_0 else 1 / 8) + largest * 2.0**-11
    assert (error <= allowed * 1.0001)[normal].all()


@EACH_FORMAT
def test_any_blocks_are_kept_byte_for_byte(to):
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(256, (7, to.row_bytes(96)), dtype=torch.uint8, generator=generator)
    assert torch.equal(quantized.to_blocks(quantized.from_blocks(blocks, to)), blocks)


@EACH_FORMAT
def test_rounding_again_changes_nothing(to):
    """A file that was dequantized to float32 becomes the same file again."""
    once = quantized.dequantize(quantized.quantize(weights(), to), torch.float32)
    assert torch.equal(quantized.dequantize(quantized.quantize(once, to), torch.float32), once)


def test_the_two_ends_of_q4_0():
    weight = torch.linspace(-8, 7, 16).repeat(2)[None]
    packed = quantized.quantize(weight, Q4_0)
    assert torch.equal(quantized.dequantize(packed, torch.float32), weight)
    assert torch.equal(quantized.integers(packed)[0], weight[0].to(torch.int8))


@EACH_FORMAT
def test_what_cannot_be_packed_is_one_line(to):
    with pytest.raises(ValueError, match=r"^up_proj has rows of 40 values: Q8_0 and Q4_0 need a multiple of 32$"):
        quantized.quantize(torch.ones(2, 40), to, "up_proj")
    for value in (float("inf"), float("nan"), 1e8):
        weight = torch.ones(2, 64)
        weight[1, 3] = value
        with pytest.raises(ValueError, match=r"^the weight holds values that are not finite, or too large for q"):
            quantized.quantize(weight, to)
