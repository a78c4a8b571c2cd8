"""The operators' interface: torch.library schemas, argument checks, output shapes.

An FFN ``down_proj(act(gate) * up)`` takes the paper's three steps: (1) the gate projection, ``linear`` or torch's own;
(2) ``sparse_up``; (3) ``sparse_down``. ``sparse_ffn`` fuses (2) and (3), and ``dense_ffn`` does the same over every
row. ``threshold`` is FATReLU's, 0 for ReLU; callers apply any other function to the gate first, with threshold 0. With
``relu_up``, the up projection has a ReLU too (dReLU). Each device's implementation registers under the same operator
names, and torch's dispatcher selects by device.

Weights have the dtype of ``x``, or all of an FFN's are packed in one of ggml's formats, whose dtype says which
(``quantized``): int8 for Q8_0, uint8 for Q4_0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prosparse.operators import quantized

#: The whole batch shares the rows that are read; with more tokens, nearly every row is active for one of them.
MAX_BATCH = 8
DTYPES = (torch.bfloat16, torch.float16, torch.float32)

torch.library.define(
    "prosparse::sparse_up",
    "(Tensor x, Tensor gate, Tensor up_weight, float threshold, *, bool relu_up=False) -> Tensor",
)
torch.library.define(
    "prosparse::sparse_down",
    "(Tensor x1, Tensor down_weight_transposed, Tensor? largest_scales=None) -> Tensor",
)
torch.library.define(
    "prosparse::sparse_ffn",
    "(Tensor x, Tensor gate, Tensor up_weight, Tensor down_weight_transposed, float threshold, "
    "Tensor? largest_scales=None, *, bool relu_up=False) -> Tensor",
)
torch.library.define(
    "prosparse::dense_ffn",
    "(Tensor x, Tensor gate, Tensor up_weight, Tensor down_weight_transposed, float threshold, "
    "Tensor? largest_scales=None, *, bool relu_up=False) -> Tensor",
)
torch.library.define(
    "prosparse::linear", "(Tensor x, Tensor weight, Tensor? score=None, float threshold=0.0) -> Tensor"
)


def _check_rows(name: str, tensor: Tensor) -> None:
    if tensor.dim() != 2:
        raise ValueError(f"{name} must have 2 dimensions, not {tensor.dim()}")
    if tensor.shape[1] > 1 and tensor.stride(1) != 1:
        raise ValueError(f"{name} must have contiguous rows: stride(1) is {tensor.stride(1)}, call .contiguous() once")


def _check_alike(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        _check_rows(name, tensor)
    devices = {tensor.device for tensor in tensors.values()}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device; found {', '.join(sorted(map(str, devices)))}")
    weights = {tensor.dtype for name, tensor in tensors.items() if "weight" in name}
    dtypes = {tensor.dtype for name, tensor in tensors.items() if "weight" not in name}
    if not weights <= set(quantized.BY_DTYPE):
        dtypes |= weights
    if len(weights) > 1 or len(dtypes) > 1 or not dtypes <= set(DTYPES):
        found = ", ".join(f"{name} {str(tensor.dtype)[6:]}" for name, tensor in tensors.items())
        raise ValueError(f"one of bfloat16, float16 and float32 is needed, the same for all; found {found}")
    if weights & set(quantized.BY_DTYPE) and devices == {torch.device("cuda")}:
        raise ValueError("weights in Q8_0 and Q4_0 are for CPUs: no kernel reads them on a GPU")


def _check_columns(x: Tensor, name: str, weight: Tensor) -> None:
    if quantized.is_packed(weight):
        form = quantized.BY_DTYPE[weight.dtype]
        if weight.shape[1] % form.block_bytes:
            raise ValueError(
                f"{name} has rows of {weight.shape[1]} bytes, not a multiple of a block's {form.block_bytes}"
            )
        _check_size("x.shape[1]", x.shape[1], f"{name}'s columns", quantized.columns(weight))
    else:
        _check_size("x.shape[1]", x.shape[1], f"{name}.shape[1]", weight.shape[1])


def _check_size(name: str, found: int, of: str, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{name} is {found}, but {of} is {expected}")


def _check_batch(name: str, batch: int) -> None:
    if not 1 <= batch <= MAX_BATCH:
        raise ValueError(f"{name} has {batch} rows; the sparse operators take 1 to {MAX_BATCH} tokens")


def check_up(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float) -> None:
    """Raise ValueError unless the arguments are valid for ``sparse_up``."""
    _check_alike(x=x, gate=gate, up_weight=up_weight)
    _check_batch("x", x.shape[0])
    _check_size("gate.shape[0]", gate.shape[0], "x.shape[0]", x.shape[0])
    _check_size("gate.shape[1]", gate.shape[1], "up_weight.shape[0]", up_weight.shape[0])
    _check_columns(x, "up_weight", up_weight)
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be finite and not negative, not {threshold}")


def _check_scales(largest_scales: Tensor | None, down_weight_transposed: Tensor) -> None:
    if largest_scales is None:
        return
    if not quantized.is_packed(down_weight_transposed):
        raise ValueError("largest_scales are for weights in Q8_0 and Q4_0")
    shape, dtype = down_weight_transposed.shape[:1], torch.float32
    if largest_scales.shape != shape or largest_scales.dtype != dtype or not largest_scales.is_contiguous():
        raise ValueError("largest_scales must be float32, contiguous, one for each row of down_weight_transposed")


def check_down(x1: Tensor, down_weight_transposed: Tensor, largest_scales: Tensor | None = None) -> None:
    """Raise ValueError unless the arguments are valid for ``sparse_down``."""
    _check_alike(x1=x1, down_weight_transposed=down_weight_transposed)
    _check_batch("x1", x1.shape[0])
    _check_size("x1.shape[1]", x1.shape[1], "down_weight_transposed.shape[0]", down_weight_transposed.shape[0])
    _check_scales(largest_scales, down_weight_transposed)


def check_ffn(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    largest_scales: Tensor | None = None,
) -> None:
    """Raise ValueError unless the arguments are valid for ``sparse_ffn`` and ``dense_ffn``."""
    check_up(x, gate, up_weight, threshold)
    _check_alike(up_weight=up_weight, down_weight_transposed=down_weight_transposed)
    _check_size(
        "down_weight_transposed.shape[0]", down_weight_transposed.shape[0], "up_weight.shape[0]", up_weight.shape[0]
    )
    _check_scales(largest_scales, down_weight_transposed)


def check_linear(x: Tensor, weight: Tensor, score: Tensor | None = None, threshold: float = 0.0) -> None:
    """Raise ValueError unless the arguments are valid for ``linear``."""
    _check_alike(x=x, weight=weight, **({} if score is None else {"score": score}))
    _check_batch("x", x.shape[0])
    _check_columns(x, "weight", weight)
    if score is not None:
        _check_size("score.shape[0]", score.shape[0], "x.shape[0]", x.shape[0])
        _check_size("score.shape[1]", score.shape[1], "weight.shape[0]", weight.shape[0])
    if not math.isfinite(threshold):
        raise ValueError(f"threshold must be finite, not {threshold}")


@torch.library.register_fake("prosparse::sparse_up")
def _(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, *, relu_up: bool = False) -> Tensor:
    check_up(x, gate, up_weight, threshold)
    return x.new_empty(gate.shape)


@torch.library.register_fake("prosparse::sparse_down")
def _(x1: Tensor, down_weight_transposed: Tensor, largest_scales: Tensor | None = None) -> Tensor:
    check_down(x1, down_weight_transposed, largest_scales)
    return x1.new_empty(x1.shape[0], quantized.columns(down_weight_transposed))


@torch.library.register_fake("prosparse::sparse_ffn")
@torch.library.register_fake("prosparse::dense_ffn")
def _(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    largest_scales: Tensor | None = None,
    *,
    relu_up: bool = False,
) -> Tensor:
    check_ffn(x, gate, up_weight, down_weight_transposed, threshold, largest_scales)
    return x.new_empty(x.shape[0], quantized.columns(down_weight_transposed))


@torch.library.register_fake("prosparse::linear")
def _(x: Tensor, weight: Tensor, score: Tensor | None = None, threshold: float = 0.0) -> Tensor:
    check_linear(x, weight, score, threshold)
    return x.new_empty(x.shape[0], weight.shape[0])
