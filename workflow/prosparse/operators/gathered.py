"""The operators in plain torch: gather the active rows, then multiply densely.

This is the obvious implementation. It is slow, since it copies every active row before reading it again, but it runs on
every device. It replaces native operators that cannot be built, and is the benchmark's baseline for ours. The reference
computes what has weights in Q8_0 or Q4_0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prosparse.operators import reference
from prosparse.operators.interface import check_down, check_ffn, check_linear, check_up
from prosparse.operators.quantized import is_packed
from prosparse.operators.reference import activated, reaches


def sparse_up(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, *, relu_up: bool = False) -> Tensor:
    """``reference.sparse_up``, with the product rounded to the weights' dtype before it is multiplied by the gate."""
    check_up(x, gate, up_weight, threshold)
    if is_packed(up_weight):
        return reference.sparse_up(x, gate, up_weight, threshold, relu_up=relu_up)
    s = activated(gate, threshold)
    active = (s != 0).any(0).nonzero().squeeze(1)
    up = nn.functional.linear(x, up_weight.index_select(0, active))
    product = (up.relu_() if relu_up else up) * s.index_select(1, active)
    x1 = x.new_zeros(gate.shape)
    return x1.index_copy_(1, active, product).masked_fill_(s == 0, 0)


def sparse_down(x1: Tensor, down_weight_transposed: Tensor, largest_scales: Tensor | None = None) -> Tensor:
    """``reference.sparse_down``; in a batch, a non-finite row also reaches tokens for which it is inactive."""
    check_down(x1, down_weight_transposed, largest_scales)
    if is_packed(down_weight_transposed):
        return reference.sparse_down(x1, down_weight_transposed)
    active = (x1 != 0).any(0).nonzero().squeeze(1)
    return _down(x1.index_select(1, active), down_weight_transposed.index_select(0, active))


def sparse_ffn(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    largest_scales: Tensor | None = None,
    *,
    relu_up: bool = False,
) -> Tensor:
    """:func:`sparse_up`, then :func:`sparse_down`."""
    check_ffn(x, gate, up_weight, down_weight_transposed, threshold, largest_scales)
    if is_packed(up_weight):
        return reference.sparse_ffn(x, gate, up_weight, down_weight_transposed, threshold, relu_up=relu_up)
    return sparse_down(sparse_up(x, gate, up_weight, threshold, relu_up=relu_up), down_weight_transposed)


def dense_ffn(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    largest_scales: Tensor | None = None,
    *,
    relu_up: bool = False,
) -> Tensor:
    """``reference.dense_ffn``, with x1 rounded as in :func:`sparse_up`."""
    check_ffn(x, gate, up_weight, down_weight_transposed, threshold, largest_scales)
    if is_packed(up_weight):
        return reference.dense_ffn(x, gate, up_weight, down_weight_transposed, threshold, relu_up=relu_up)
    return _down(dense_up(x, gate, up_weight, threshold, relu_up), down_weight_transposed)


def linear(x: Tensor, weight: Tensor, score: Tensor | None = None, threshold: float = 0.0) -> Tensor:
    """``reference.linear``."""
    check_linear(x, weight, score, threshold)
    if is_packed(weight):
        return reference.linear(x, weight, score, threshold)
    if score is None:
        return nn.functional.linear(x, weight)
    computed = reaches(score, threshold)
    rows = computed.any(0).nonzero().squeeze(1)
    product = nn.functional.linear(x, weight.index_select(0, rows))
    return x.new_zeros(score.shape).index_copy_(1, rows, product).masked_fill_(~computed, 0)


def dense_up(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, relu_up: bool) -> Tensor:
    """Step (2) over every row; inactive neurons are exactly 0."""
    s, up = activated(gate, threshold), nn.functional.linear(x, up_weight)
    return ((up.relu_() if relu_up else up) * s).masked_fill_(s == 0, 0)


def _down(x1: Tensor, rows: Tensor) -> Tensor:
    # one token at a time: torch's matrix product takes about thirty times as long in 16 bits on CPUs
    return torch.stack([torch.mv(rows.t(), token) for token in x1])


def register() -> None:
    """Register these operators for CPU tensors."""
    for operator in (sparse_up, sparse_down, sparse_ffn, dense_ffn, linear):
        torch.library.impl(f"prosparse::{operator.__name__}", "CPU", operator)
