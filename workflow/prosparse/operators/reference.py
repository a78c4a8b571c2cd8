"""What the operators compute, in plain dense torch: the definition that every kernel is tested against.

A neuron of a token is *active* when its gate pre-activation g, compared in the weights' dtype, is ``g >= threshold``
and not zero; the threshold is rounded to that dtype, to infinity where it is beyond it. An inactive neuron's x1 is
exactly 0, whatever its weights or the input hold (infinities, NaN): the kernels never read them. A NaN gate is
inactive, as in FATReLU; a NaN in x1 is active and reaches the output. The score that ``linear`` may be given is
compared in the same way, but a zero counts like any other number. Sums are taken in at least float32 and rounded to the
weights' dtype once, at the end.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.cache
def held(threshold: float, dtype: torch.dtype) -> float:
    """The threshold as ``dtype`` holds it; a number, so that no device has to be waited for."""
    return torch.tensor(threshold, dtype=dtype, device="cpu").item()


def reaches(values: Tensor, threshold: float) -> Tensor:
    """Where values are at least the threshold, rounded to their dtype first; NaN is not."""
    return values >= held(threshold, values.dtype)


def activated(gate: Tensor, threshold: float) -> Tensor:
    """FATReLU of the gate pre-activations; the threshold is rounded to their dtype first."""
    return torch.where(reaches(gate, threshold), gate, 0)


def _accumulation_dtype(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


def _x1(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float) -> Tensor:
    """Step (2) before rounding, in the accumulation dtype."""
    dtype = _accumulation_dtype(up_weight)
    s = activated(gate, threshold).to(dtype)
    return torch.where(s != 0, s * (x.to(dtype) @ up_weight.to(dtype).T), 0)


def _down(x1: Tensor, down_weight_transposed: Tensor) -> Tensor:
    """Step (3) before rounding: a sum over the active neurons of each token alone."""
    weight = down_weight_transposed.to(x1.dtype)
    return torch.stack([token[token != 0] @ weight[token != 0] for token in x1])


def sparse_up(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float) -> Tensor:
    """Step (2): ``x1 = act(gate) * (x W_1^T)``.

    Args:
        x: input of the FFN, [B, hidden_size].
        gate: pre-activations ``x W_s^T``, [B, intermediate_size].
        up_weight: W_1 as Hugging Face keeps it, [intermediate_size, hidden_size].
        threshold: FATReLU's; 0 is ReLU.

    Returns:
        x1, [B, intermediate_size], in x's dtype.
    """
    return _x1(x, gate, up_weight, threshold).to(x.dtype)


def sparse_down(x1: Tensor, down_weight_transposed: Tensor) -> Tensor:
    """Step (3): ``x1 W_2^T`` over the non-zero x1.

    Args:
        x1: [B, intermediate_size].
        down_weight_transposed: W_2^T made contiguous, [intermediate_size, hidden_size].

    Returns:
        [B, hidden_size], in x1's dtype.
    """
    return _down(x1.to(_accumulation_dtype(x1)), down_weight_transposed).to(x1.dtype)


def sparse_ffn(x: Tensor, gate: Tensor, up_weight: Tensor, down_weight_transposed: Tensor, threshold: float) -> Tensor:
    """Steps (2) and (3) in one; x1 is not rounded between them. Arguments as above; returns [B, hidden_size]."""
    return _down(_x1(x, gate, up_weight, threshold), down_weight_transposed).to(x.dtype)


def dense_ffn(x: Tensor, gate: Tensor, up_weight: Tensor, down_weight_transposed: Tensor, threshold: float) -> Tensor:
    """``sparse_ffn`` over every row, active or not: the same value, as long as W_2 is finite.

    What the speed of ``sparse_ffn`` is measured against. An inactive neuron's row of W_2 is multiplied by 0, so it may
    turn the result into NaN where it is not finite.
    """
    return sparse_ffn(x, gate, up_weight, down_weight_transposed, threshold)


def linear(x: Tensor, weight: Tensor, score: Tensor | None = None, threshold: float = 0.0) -> Tensor:
    """``x W^T``, computed only where a score says so: with a predictor's logits, the gate of the predicted neurons.

    Args:
        x: [B, in_features].
        weight: W as Hugging Face keeps it, [out_features, in_features].
        score: [B, out_features]. None computes everything.
        threshold: the least score of what is computed; of any sign. Without a score it has no effect.

    Returns:
        [B, out_features], in x's dtype; exactly 0 where the score is below the threshold or NaN.
    """
    dtype = _accumulation_dtype(weight)
    product = x.to(dtype) @ weight.to(dtype).T
    if score is not None:
        product = torch.where(reaches(score, threshold), product, 0)
    return product.to(x.dtype)
