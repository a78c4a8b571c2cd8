"""Weights in ggml's formats Q8_0 and Q4_0, laid out for our operators.

A block is 32 neighboring values of a row, with one float16 scale d: Q8_0 holds q from -128 to 127 and means ``q d``,
Q4_0 holds q from 0 to 15 and means ``(q - 8) d``. ggml stores each block's scale before its values; we store a row's
scales, then its values, so that vectors load values only. The bytes are the same, and nothing is rounded between the
two orders. A packed matrix [rows, bytes] is int8 for Q8_0 and uint8 for Q4_0: its dtype tells the operators what it
holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
import torch
from torch import Tensor

BLOCK = 32  # values that share a scale
SCALE_BYTES = 2
#: Values that are converted at once.
CHUNK = 1 << 24


@dataclass(frozen=True)
class Format:
    """One of ggml's formats."""

    name: str
    dtype: torch.dtype
    ggml_type: gguf.GGMLQuantizationType
    value_bytes: int  # of a block

    @property
    def block_bytes(self) -> int:
        return self.value_bytes + SCALE_BYTES

    def row_bytes(self, columns: int) -> int:
        return columns // BLOCK * self.block_bytes


Q8_0 = Format("q8_0", torch.int8, gguf.GGMLQuantizationType.Q8_0, BLOCK)
Q4_0 = Format("q4_0", torch.uint8, gguf.GGMLQuantizationType.Q4_0, BLOCK // 2)
FORMATS = {each.name: each for each in (Q8_0, Q4_0)}
BY_DTYPE = {each.dtype: each for each in FORMATS.values()}


def weight_dtype(precision: str) -> torch.dtype:
    """The dtype of weights in a precision: bfloat16, float16, float32, q8_0 or q4_0."""
    return FORMATS[precision].dtype if precision in FORMATS else getattr(torch, precision)


def is_packed(weight: Tensor) -> bool:
    """Whether the matrix is in one of ggml's formats."""
    return weight.dtype in BY_DTYPE


def columns(weight: Tensor) -> int:
    """Values per row of a packed or ordinary matrix."""
    if not is_packed(weight):
        return weight.shape[-1]
    return weight.shape[-1] // BY_DTYPE[weight.dtype].block_bytes * BLOCK


def check_columns(name: str, count: int) -> None:
    """Raise ValueError unless rows of so many values are whole blocks."""
    if count % BLOCK:
        raise ValueError(f"{name} has rows of {count} values: Q8_0 and Q4_0 need a multiple of {BLOCK}")


def quantize(weight: Tensor, to: Format, name: str = "the weight") -> Tensor:
    """Round a matrix [rows, columns] exactly as ggml does.

    Raises:
        ValueError: rows are no whole blocks, or a value is not finite or too large for a float16 scale.
    """
    check_columns(name, weight.shape[1])
    packed = torch.empty(len(weight), to.row_bytes(weight.shape[1]), dtype=to.dtype)
    step = max(1, CHUNK // max(1, weight.shape[1]))
    for start in range(0, len(weight), step):
        part = weight[start : start + step].detach().float().cpu().contiguous()
        with np.errstate(all="ignore"):  # checked below
            blocks = gguf.quants.quantize(part.numpy(), to.ggml_type)
        packed[start : start + step] = from_blocks(torch.from_numpy(blocks).view(len(part), -1), to)
    if packed.numel() and not scales(packed).isfinite().all():
        raise ValueError(f"{name} holds values that are not finite, or too large for {to.name}'s float16 scales")
    return packed


def from_blocks(blocks: Tensor, of: Format) -> Tensor:
    """Pack rows as a GGUF file holds them, uint8 [rows, bytes]."""
    each = blocks.view(len(blocks), -1, of.block_bytes)
    parts = each[..., :SCALE_BYTES].flatten(1), each[..., SCALE_BYTES:].flatten(1)
    return torch.cat(parts, dim=1).view(of.dtype)


def to_blocks(packed: Tensor) -> Tensor:
    """The rows of a packed matrix as a GGUF file holds them, uint8 [rows, bytes]."""
    of = BY_DTYPE[packed.dtype]
    scale, values = _parts(packed.view(torch.uint8), of)
    return torch.cat([scale.unflatten(1, (-1, SCALE_BYTES)), values.unflatten(1, (-1, of.value_bytes))], 2).flatten(1)


def _parts(packed: Tensor, of: Format) -> tuple[Tensor, Tensor]:
    """Scales and values of rows, as bytes."""
    boundary = packed.shape[1] // of.block_bytes * SCALE_BYTES
    return packed[:, :boundary], packed[:, boundary:]


def scales(packed: Tensor) -> Tensor:
    """The scale of each block, float16 [rows, columns / 32]."""
    return _parts(packed.view(torch.uint8), BY_DTYPE[packed.dtype])[0].contiguous().view(torch.float16)


def largest_scales(packed: Tensor) -> Tensor:
    """The largest magnitude among each row's scales, float32 [rows].

    Step (3) rounds factors relative to the largest in its sum. Given these, it need not search the rows for it.
    """
    return scales(packed).float().abs().amax(1)


def integers(packed: Tensor) -> Tensor:
    """The integers that the scales multiply, int8 [rows, columns]: -128 to 127, or -8 to 7."""
    of = BY_DTYPE[packed.dtype]
    values = _parts(packed.view(torch.uint8), of)[1]
    if of is Q8_0:
        return values.contiguous().view(torch.int8)
    halves = values.unflatten(1, (-1, 1, of.value_bytes))
    return torch.cat([halves & 15, halves >> 4], dim=2).flatten(1).view(torch.int8) - 8


def dequantize(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """The values of a packed matrix, [rows, columns]; exact in float32 and float64."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    blocks = integers(packed).unflatten(1, (-1, BLOCK)).to(exact)
    return (blocks * scales(packed).to(exact)[..., None]).flatten(1).to(dtype)
