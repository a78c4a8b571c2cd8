"""Inputs for the operators on quantized weights, and the comparison with the float64 reference."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prosparse import operators
from prosparse.operators import quantized, reference
from prosparse.operators.quantized import FORMATS, Format

DENSITIES = (0, 0.01, 0.1, 0.5, 1)
#: (hidden, intermediate): less than a vector, a tail, whole groups, SmolLM2's, and more.
SHAPES = ((32, 1), (64, 13), (96, 257), (160, 40), (512, 96), (544, 33), (576, 300), (1056, 64))


@dataclass(frozen=True)
class Case:
    """Arguments of the FFN operators; shapes as in reference.py."""

    x: Tensor
    gate: Tensor
    up_weight: Tensor
    down: Tensor
    threshold: float


def case_of(form: Format, dtype: torch.dtype, batch: int, hidden: int, intermediate: int, density: float) -> Case:
    """Standard normal x and weights; each gate is active with probability ``density``."""
    generator = torch.Generator().manual_seed(1000 * hidden + intermediate + batch)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    active = torch.rand(batch, intermediate, generator=generator) < density
    gate = torch.where(active, 0.02 + normal(batch, intermediate).abs(), -normal(batch, intermediate).abs())
    up, down = (quantized.quantize(normal(intermediate, hidden), form) for _ in range(2))
    return Case(normal(batch, hidden).to(dtype), gate.to(dtype), up, down, 0.01)


def ffn_arguments(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    return case.x, case.gate, case.up_weight, case.down, case.threshold


def extreme_cases(form: Format, dtype: torch.dtype) -> list[Case]:
    """Scales at both ends of float16 and 0, large and tiny inputs, and inputs that are not finite."""
    found = []
    for factor in (2.0**-24, 2.0**-14, 1e3):  # scales that are subnormal, about to be, and large
        case = case_of(form, dtype, 2, 96, 40, 0.5)
        weights = [quantized.dequantize(weight, torch.float32) * factor for weight in (case.up_weight, case.down)]
        found.append(Case(case.x, case.gate, *(quantized.quantize(weight, form) for weight in weights), 0.01))
    zero = case_of(form, dtype, 2, 96, 40, 0.5)
    zero.up_weight[::2], zero.down[1::3] = 0, 0  # values of 0 mean -8 in Q4_0, but their scale is 0
    found.append(zero)
    for factor in (1e-30, 1e-5, 1e3):
        case = case_of(form, dtype, 3, 96, 40, 0.5)
        case.x.mul_(factor)
        case.x[1, :32] = 0
        found.append(case)
    for value in (float("inf"), float("nan")):
        case = case_of(form, dtype, 3, 96, 40, 0.5)
        case.x[0, 70] = value
        found.append(case)
        gates = case_of(form, dtype, 3, 96, 40, 0.5)
        gates.gate[0, 7], gates.gate[2, ::5] = value, -value
        found.append(gates)
    idle = case_of(form, dtype, 2, 96, 40, 0)
    idle.x[0, 3] = float("nan")
    found.append(idle)
    return found


def _assert_within(found: Tensor, expected: Tensor, allowed: Tensor) -> None:
    """``expected`` in float64; ``allowed`` comes on top of rounding to the result's dtype."""
    dtype = found.dtype
    assert torch.equal(found.isnan(), expected.to(dtype).isnan())
    infinite = expected.to(dtype).isinf()
    assert torch.equal(found[infinite].float(), expected.to(dtype)[infinite].float())
    rest = ~(infinite | found.isnan())
    information = torch.finfo(dtype)
    rounding = expected.abs() * information.eps + information.smallest_normal * information.eps
    error = (found.double() - expected).abs()
    assert (error <= rounding + allowed)[rest].all(), (error - rounding - allowed)[rest].max()


def _allowed_product(x: Tensor, weight: Tensor) -> Tensor:
    """Rounding of sums in float32."""
    return 2e-6 * (reference.rounded_input(x).abs() @ quantized.dequantize(weight, torch.float64).abs().T).nan_to_num()


def _allowed_sum(x1: Tensor, weight: Tensor) -> Tensor:
    """Rounding of factors to 16 bits: half a unit times the integers of the rows that a token adds."""
    scales = quantized.scales(weight).double().abs()
    x1 = x1.nan_to_num(0, 0, 0).abs()
    largest = (x1 * scales.amax(1)).amax(1, keepdim=True)
    integers = quantized.integers(weight).double().abs()
    unit = largest / 32766
    tiny = 2.0**-100 * integers.sum(0)  # what counts as zero
    return (
        0.501 * unit * ((x1 != 0).double() @ integers)
        + tiny
        + 1e-6 * (x1 @ quantized.dequantize(weight, torch.float64).abs())
    )


def exactly(case: Case, relu_up: bool) -> Tensor:
    """x1 of the reference in float64."""
    return reference._x1(case.x, case.gate, case.up_weight, case.threshold, relu_up)


def assert_matches_reference(case: Case) -> None:
    """Every operator on the case's arguments."""
    product = reference._product(case.x, case.up_weight)
    allowed = _allowed_product(case.x, case.up_weight)
    _assert_within(operators.linear(case.x, case.up_weight), product, allowed)
    chosen = reference.reaches(case.gate, -0.3)
    masked = operators.linear(case.x, case.up_weight, case.gate, -0.3)
    _assert_within(masked, torch.where(chosen, product, 0), torch.where(chosen, allowed, 0))

    gates = reference.activated(case.gate, case.threshold).double().abs().nan_to_num(0, 0, 0)
    of_x1 = (gates * allowed) @ quantized.dequantize(case.down, torch.float64).abs()
    for relu_up in (False, True):
        x1 = exactly(case, relu_up)
        found = operators.sparse_up(*ffn_arguments(case)[:3], case.threshold, relu_up=relu_up)
        _assert_within(found, x1, gates * allowed)
        expected = reference._down(x1, case.down)
        for name in ("sparse_ffn", "dense_ffn"):
            found = getattr(operators, name)(*ffn_arguments(case), relu_up=relu_up)
            _assert_within(found, expected, _allowed_sum(x1, case.down) + 2 * of_x1)

    x1 = exactly(case, relu_up=False)
    given = x1.to(case.x.dtype)
    expected = reference._down(given.double(), case.down)
    _assert_within(operators.sparse_down(given, case.down), expected, _allowed_sum(given.double(), case.down))


def digest() -> str:
    """Of sums of rows, in which no order matters. The numbers drawn do not depend on the instruction set either."""
    found, generator = hashlib.sha256(), np.random.default_rng(0)
    for form in FORMATS.values():
        for hidden in (96, 544):
            blocks = generator.integers(256, size=(1031, hidden // quantized.BLOCK, form.block_bytes), dtype=np.uint8)
            blocks[..., 1] &= 0x3F  # scales below 2, of either sign
            blocks[..., 1] |= generator.integers(2, size=blocks.shape[:2], dtype=np.uint8) << 7
            weight = quantized.from_blocks(torch.from_numpy(blocks).flatten(1), form)
            x1 = torch.from_numpy(generator.integers(-9999, 9999, size=(3, 1031)).astype(np.float32))
            x1[:, ::3] = 0
            found.update(operators.sparse_down(x1, weight).numpy().tobytes())
    return found.hexdigest()
