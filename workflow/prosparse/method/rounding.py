"""Add a small increment to a 16-bit tensor without bias, by stochastic rounding.

Rounding to nearest drops an increment below half the spacing of 16-bit numbers: in bfloat16, anything below 1/512 to
1/256 of the number it is added to. Stochastic rounding rounds up with a probability equal to the remainder, so that
its mean is the exact sum; a number that needs no rounding does not change.

A draw is a function of a key, a row and a column, not of a generator's state: recomputation, resumption and any split
of the rows among processes see the same draws. It is a hash of the row XOR a hash of the column, which costs
rows + columns hashes. Such draws are uniform and pairwise independent, so sums over rows or columns have the mean and
variance of independent draws.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Integers = TypeVar("Integers", int, Tensor)

HALF_PRECISION = (torch.bfloat16, torch.float16)
_WORD = 0xFFFFFFFF
_EXPONENT = 0x7F800000  # bits of a float32's exponent
_CACHED = 2**17  # elements per thread and slice on a CPU, so that the temporary tensors fit into its cache


def _mix(value: Integers) -> Integers:
    """Hash 32-bit integers (Mueller's hash, a bijection), given as a number or an int64 tensor."""
    value = ((value >> 16) ^ value) * 0x45D9F3B & _WORD
    value = ((value >> 16) ^ value) * 0x45D9F3B & _WORD
    return (value >> 16) ^ value


def draw_key(*numbers: int) -> int:
    """Return a 32-bit key for a stream of draws, e.g. from a seed, step and layer."""
    key = 0
    for number in numbers:
        key = _mix(key ^ _mix(number + 1 & _WORD))
    return key


def draws(key: Tensor, first_row: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return 16-bit int32 words [rows, 1] and [columns], whose XOR gives the draws [rows, columns]."""
    row = torch.arange(rows, device=key.device) + first_row
    column = torch.arange(columns, device=key.device)
    words = [_mix(_mix(index & _WORD) ^ key) & 0xFFFF for index in (2 * row, 2 * column + 1)]
    return words[0].to(torch.int32)[:, None], words[1].to(torch.int32)


def add_sign(values: Tensor, signs: Tensor, scale: Tensor, row_draws: Tensor, column_draws: Tensor) -> Tensor:
    """Return ``values + scale * sign(signs)``, rounded stochastically to the 16-bit dtype of ``values``.

    Args:
        values: [rows, columns], bfloat16 or float16.
        signs: [rows, columns].
        scale: a float32 scalar.
        row_draws, column_draws: from :func:`draws`.
    """
    if values.is_cpu:
        return _add_sign_in_slices(values, signs, scale, row_draws, column_draws)
    return _add_sign(values, signs, scale, row_draws, column_draws)


def _add_sign(values: Tensor, signs: Tensor, scale: Tensor, row_draws: Tensor, column_draws: Tensor) -> Tensor:
    total = torch.addcmul(values.float(), signs.float().sign_(), scale)
    noise = row_draws ^ column_draws
    bits = total.view(torch.int32)
    if values.dtype == torch.bfloat16:  # a float32 without its lower 16 bits
        return bits.add_(noise).bitwise_and_(-0x10000).view(torch.float32).to(torch.bfloat16)
    information = torch.finfo(values.dtype)
    power = bits.bitwise_and(_EXPONENT).view(torch.float32)  # 2 ** floor(log2(|total|))
    spacing = (power * information.eps).clamp_min_(information.tiny * information.eps)
    # 13 bits of noise: with more, the sum would itself be rounded
    rounded = (total / spacing + (noise >> 3) * 2**-13).floor_() * spacing
    return torch.where(total.isfinite(), rounded, total).to(values.dtype)


# Opaque to torch.compile, whose C++ reinterprets bits one element at a time and is several times slower.
@torch.library.custom_op("prosparse::add_sign_in_slices", mutates_args=())
def _add_sign_in_slices(
    values: Tensor, signs: Tensor, scale: Tensor, row_draws: Tensor, column_draws: Tensor
) -> Tensor:
    result = torch.empty_like(values, memory_format=torch.contiguous_format)
    rows = max(1, _CACHED * torch.get_num_threads() // values.shape[1])
    for part, *slices in zip(
        result.split(rows), values.split(rows), signs.split(rows), row_draws.split(rows), strict=True
    ):
        part.copy_(_add_sign(slices[0], slices[1], scale, slices[2], column_draws))
    return result


@_add_sign_in_slices.register_fake
def _(values: Tensor, signs: Tensor, scale: Tensor, row_draws: Tensor, column_draws: Tensor) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)
