"""The operators' definition in plain dense torch, against which every kernel is tested.

A neuron is *active* for a token if its gate pre-activation g is not zero and ``g >= threshold``, compared in the
weights' dtype; the threshold is rounded to that dtype, to infinity if it is out of range. An inactive neuron's x1 is
exactly 0 even if its weights or the input hold infinities or NaN: the kernels never read them. A NaN gate is inactive,
as in FATReLU; a NaN in x1 is active and reaches the output. With ``relu_up``, an active neuron's product with W_1 goes
through a ReLU, and its row of W_2 is not read where x1 is 0. A score passed to ``linear`` is compared as a gate is, but
a zero counts like any other number. Sums accumulate in at least float32 and are rounded to the weights' dtype once, at
the end.

With weights in Q8_0 or Q4_0, the input of a product is first rounded to 8 bits per block of 32, as ggml does
(:func:`rounded_input`), and sums are exact in float64. In step (3), kernels round each factor, x1 times a scale,
to 16 bits of the largest one; this definition does not. Inputs that are not finite make all values of their token NaN.
Such weights must be finite.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from prosparse.operators import quantized


@functools.cache
def held(threshold: float, dtype: torch.dtype) -> float:
    """Round the threshold to ``dtype``; return a number, so that nothing waits for a device."""
    return torch.tensor(threshold, dtype=dtype, device="cpu").item()


def reaches(values: Tensor, threshold: float) -> Tensor:
    """Return where the values reach the threshold, rounded to their dtype first; NaN does not."""
    return values >= held(threshold, values.dtype)


def activated(gate: Tensor, threshold: float) -> Tensor:
    """FATReLU of the gate pre-activations; the threshold is rounded to their dtype first."""
    return torch.where(reaches(gate, threshold), gate, 0)


def rounded_input(x: Tensor) -> Tensor:
    """The values [..., columns] that a product with packed weights multiplies, in float64; NaN where not finite.

    A block's scale is its largest magnitude / 127 in float32; a block whose 127 / largest overflows is zero.
    """
    blocks = x.float().unflatten(-1, (-1, quantized.BLOCK))
    largest = blocks.abs().amax(-1, keepdim=True)
    inverse = torch.full_like(largest, 127) / largest  # not 127 / largest, which torch rounds twice
    values = torch.where(inverse.isfinite(), (blocks * inverse).round(), 0).double() * (largest / 127).double()
    return torch.where(blocks.isfinite().all(-1, keepdim=True), values, torch.nan).flatten(-2)


def _accumulation_dtype(weight: Tensor) -> torch.dtype:
    return torch.float64 if quantized.is_packed(weight) else torch.promote_types(weight.dtype, torch.float32)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """``x W^T`` in the accumulation dtype."""
    if quantized.is_packed(weight):
        return rounded_input(x) @ quantized.dequantize(weight, torch.float64).T
    dtype = _accumulation_dtype(weight)
    return x.to(dtype) @ weight.to(dtype).T


def _x1(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, relu_up: bool) -> Tensor:
    """Step (2) before rounding, in the accumulation dtype."""
    dtype = _accumulation_dtype(up_weight)
    s, up = activated(gate, threshold).to(dtype), _product(x, up_weight)
    return torch.where(s != 0, s * (torch.relu(up) if relu_up else up), 0)


def _down(x1: Tensor, down_weight_transposed: Tensor) -> Tensor:
    """Step (3) before rounding: sum over each token's own active neurons."""
    if quantized.is_packed(down_weight_transposed):
        weight = quantized.dequantize(down_weight_transposed, torch.float64)
        return torch.where(x1.isfinite().all(1, keepdim=True), x1.double() @ weight, torch.nan)
    weight = down_weight_transposed.to(x1.dtype)
    return torch.stack([token[token != 0] @ weight[token != 0] for token in x1])


def sparse_up(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, *, relu_up: bool = False) -> Tensor:
    """Step (2): ``x1 = act(gate) * (x W_1^T)``.

    Args:
        x: input of the FFN, [B, hidden_size].
        gate: pre-activations ``x W_s^T``, [B, intermediate_size].
        up_weight: W_1 in Hugging Face's layout, [intermediate_size, hidden_size].
        threshold: FATReLU's threshold; 0 is ReLU.
        relu_up: ``relu(x W_1^T)`` is the factor instead (dReLU, with threshold 0).

    Returns:
        x1, [B, intermediate_size], in x's dtype.
    """
    return _x1(x, gate, up_weight, threshold, relu_up).to(x.dtype)


def sparse_down(x1: Tensor, down_weight_transposed: Tensor) -> Tensor:
    """Step (3): ``x1 W_2^T`` over the non-zero x1.

    Args:
        x1: [B, intermediate_size].
        down_weight_transposed: contiguous W_2^T, [intermediate_size, hidden_size].

    Returns:
        [B, hidden_size], in x1's dtype.
    """
    return _down(x1.to(_accumulation_dtype(x1)), down_weight_transposed).to(x1.dtype)


def sparse_ffn(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    *,
    relu_up: bool = False,
) -> Tensor:
    """Steps (2) and (3) fused, without rounding x1 in between. Arguments as above; returns [B, hidden_size]."""
    return _down(_x1(x, gate, up_weight, threshold, relu_up), down_weight_transposed).to(x.dtype)


def dense_ffn(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    *,
    relu_up: bool = False,
) -> Tensor:
    """``sparse_ffn`` over every row, active or not: the same value, as long as W_2 is finite.

    It is the baseline for the speed of ``sparse_ffn``. Kernels multiply an inactive neuron's row of W_2 by 0, so a
    non-finite row may turn the result into NaN.
    """
    return sparse_ffn(x, gate, up_weight, down_weight_transposed, threshold, relu_up=relu_up)


def linear(x: Tensor, weight: Tensor, score: Tensor | None = None, threshold: float = 0.0) -> Tensor:
    """``x W^T`` where the score reaches the threshold: with a predictor's logits, the gates predicted active.

    Args:
        x: [B, in_features].
        weight: W in Hugging Face's layout, [out_features, in_features].
        score: [B, out_features]. None computes everything.
        threshold: the least score to compute; may be negative. Has no effect without a score.

    Returns:
        [B, out_features], in x's dtype; exactly 0 where the score is below the threshold or NaN.
    """
    product = _product(x, weight)
    if score is not None:
        product = torch.where(reaches(score, threshold), product, 0)
    return product.to(x.dtype)
