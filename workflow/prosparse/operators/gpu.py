"""The operators on NVIDIA and AMD GPUs; importing it registers them for CUDA tensors.

``dense_ffn``, and ``linear`` without a score, read every row and use torch's own products. The others are short lists
of Triton kernel launches that never wait for the host, so that CUDA graphs can capture them:

* compact: list the neurons that are active for any token of the batch, in ascending order, on the device;
* up: compute x1 of the listed neurons; each reads its row of W_1 once for the whole batch. ``linear`` with a score does
  the same without the gate as a factor;
* down: sum the listed neurons' rows of W_2^T, in splits of the list that write private float32 sums;
* add splits: add those sums in a fixed order. Nothing is atomic, so results are bitwise reproducible.

Weights may be NaN or infinite where a token's x1 is 0: ``tl.where`` drops the product, which multiplying by 0 would
not.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from prosparse.operators import gathered, interface
from prosparse.operators.reference import held

# Block sizes and threads are chosen for 16-byte loads and about 32 KiB of weights in flight per multiprocessor: to keep
# its memory busy for one latency, an A100 needs 11 KiB and an H100 20 KiB.
COMPACT_BLOCK, COMPACT_THREADS = 8192, 1024  # a single program: the most threads it can have, 8 gates each
UP_BLOCK_HIDDEN, UP_THREADS = 1024, 128  # values of a row at a time: 8 per thread, which are 16 bytes in 16 bits
DOWN_BLOCK_HIDDEN, DOWN_THREADS = 256, 128  # 32 threads read 512 bytes of a row in one instruction
DOWN_BLOCK_NEURONS = 16  # 16 rows x 256 columns are 32 float32 accumulators per thread
DOWN_LEAST_BLOCK_NEURONS = 4  # a batch divides the block by its tokens; fewer would not fill a warp's 16-byte loads
SPLITS_BLOCK, SPLITS_THREADS = 64, 128
WARP_SIZE = 64 if torch.version.hip else 32
MAX_SPLITS = 64  # more only slow narrow layers down
UP_PROGRAMS_PER_MULTIPROCESSOR = 8  # each has one row in flight (8 KiB at 4096); 1024 threads of up to 64 registers
DOWN_PROGRAMS_PER_MULTIPROCESSOR = 8  # each has 8 KiB in flight half of the time: it first loads the rows' indices


@triton.jit
def compact_kernel(
    values, x1, neurons, count, threshold, batch, intermediate_size, values_stride,
    IS_SCORE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """List the neurons active for any token; values are gates, x1 (no threshold) or scores. Also zero x1, if given."""
    found = 0
    for start in range(0, intermediate_size, BLOCK):
        neuron = start + tl.arange(0, BLOCK)
        inside = neuron < intermediate_size
        active = tl.zeros([BLOCK], tl.int32)
        for token in range(batch):
            value = tl.load(values + token * values_stride + neuron, mask=inside, other=0).to(tl.float32)
            present = inside
            if threshold is not None:
                present = present & (value >= threshold)
            if not IS_SCORE:  # a score of 0 counts like any other
                present = present & (value != 0)
            active |= present.to(tl.int32)
            if x1 is not None:
                tl.store(x1 + token * intermediate_size + neuron, tl.zeros([BLOCK], x1.dtype.element_ty), mask=inside)
        position = found + tl.cumsum(active) - active
        tl.store(neurons + position, neuron, mask=active != 0)
        found += tl.sum(active)
    tl.store(count, found)


@triton.jit
def up_kernel(
    x, values, up_weight, x1, neurons, count, threshold, batch, x_stride, values_stride, up_stride, x1_stride,
    IS_SCORE: tl.constexpr, COMPACT: tl.constexpr, HIDDEN_SIZE: tl.constexpr, BLOCK_BATCH: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
):  # fmt: skip
    """Compute x1 of every listed neuron and store it at the neuron's index or, if COMPACT, at its position in the
    list. Values are gates, which are factors of x1, or scores, which are not."""
    token = tl.arange(0, BLOCK_BATCH)
    present = token < batch
    column = tl.arange(0, BLOCK_HIDDEN)[None, :]
    for i in range(tl.program_id(0), tl.load(count), tl.num_programs(0)):
        neuron = tl.load(neurons + i)
        row = up_weight + neuron.to(tl.int64) * up_stride
        products = tl.zeros([BLOCK_BATCH, BLOCK_HIDDEN], tl.float32)
        for start in tl.static_range(0, HIDDEN_SIZE, BLOCK_HIDDEN):  # unrolled: the loads of a row overlap
            inside = start + column < HIDDEN_SIZE
            # a weight is read once and must not evict x from the L1 cache
            weight = tl.load(row + start + column, mask=inside, other=0, eviction_policy="evict_first")
            mask = present[:, None] & inside
            value = tl.load(x + token[:, None] * x_stride + start + column, mask=mask, other=0)
            products += weight.to(tl.float32) * value.to(tl.float32)
        result = tl.sum(products, axis=1)
        own = tl.load(values + token * values_stride + neuron, mask=present, other=0).to(tl.float32)
        if IS_SCORE:
            result = tl.where(own >= threshold, result, 0)
        else:
            result = tl.where((own >= threshold) & (own != 0), own * result, 0)
        place = i if COMPACT else neuron
        tl.store(x1 + token * x1_stride + place, result.to(x1.dtype.element_ty), mask=present)


@triton.jit
def down_kernel(
    x1, down_weight_transposed, partial, neurons, count, batch, hidden_size, x1_stride, down_stride,
    COMPACT: tl.constexpr, BLOCK_BATCH: tl.constexpr, BLOCK_NEURONS: tl.constexpr, BLOCK_HIDDEN: tl.constexpr,
):  # fmt: skip
    """Compute one split's sum for one block of columns; the tiles' dimensions are token, neuron, column."""
    token = tl.arange(0, BLOCK_BATCH)
    column = tl.program_id(0) * BLOCK_HIDDEN + tl.arange(0, BLOCK_HIDDEN)
    inside = column < hidden_size
    listed = tl.load(count)
    total = tl.zeros([BLOCK_BATCH, BLOCK_NEURONS, BLOCK_HIDDEN], tl.float32)
    for start in range(tl.program_id(1) * BLOCK_NEURONS, listed, tl.num_programs(1) * BLOCK_NEURONS):
        i = start + tl.arange(0, BLOCK_NEURONS)
        neuron = tl.load(neurons + i, mask=i < listed, other=0)
        row = down_weight_transposed + neuron.to(tl.int64)[None, :, None] * down_stride
        mask = (i < listed)[None, :, None] & inside[None, None, :]
        weight = tl.load(row + column[None, None, :], mask=mask, other=0, eviction_policy="evict_first")
        place = i if COMPACT else neuron
        mask = (token < batch)[:, None] & (i < listed)[None, :]
        value = tl.load(x1 + token[:, None] * x1_stride + place[None, :], mask=mask, other=0).to(tl.float32)[:, :, None]
        total += tl.where(value != 0, value * weight.to(tl.float32), 0)
    row = (tl.program_id(1) * batch + token) * hidden_size
    mask = (token < batch)[:, None] & inside[None, :]
    tl.store(partial + row[:, None] + column[None, :], tl.sum(total, axis=1), mask=mask)


@triton.jit
def add_splits_kernel(partial, output, splits, size, BLOCK_SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Sum [splits, size] over the splits and round to the output's dtype."""
    split = tl.arange(0, BLOCK_SPLITS)[:, None]
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = (split < splits) & (i < size)[None, :]
    total = tl.sum(tl.load(partial + split * size + i[None, :], mask=mask, other=0), axis=0)
    tl.store(output + i, total.to(output.dtype.element_ty), mask=i < size)


class Launch(NamedTuple):
    """A kernel, its grid, the threads of each program and the keyword arguments of its call."""

    kernel: Any
    grid: tuple[int, ...]
    threads: int
    arguments: dict[str, Any]

    def call(self, warp_size: int) -> dict[str, Any]:
        """The arguments for a device on which this many threads are a warp."""
        return {**self.arguments, "num_warps": self.threads // warp_size}


#: The list of active neurons on the device: ``neurons`` [intermediate_size], of which the first ``count`` are valid.
_Active = dict[str, Tensor]


def _compact(
    values: Tensor, threshold: float | None, x1: Tensor | None = None, is_score: bool = False
) -> tuple[Launch, _Active]:
    batch, intermediate_size = values.shape
    sizes = {"neurons": intermediate_size, "count": 1}
    active = {name: values.new_empty(size, dtype=torch.int32) for name, size in sizes.items()}
    arguments = dict(
        values=values, x1=x1, **active, threshold=threshold, batch=batch,
        intermediate_size=intermediate_size, values_stride=values.stride(0),
        IS_SCORE=is_score, BLOCK=COMPACT_BLOCK,
    )  # fmt: skip
    return Launch(compact_kernel, (1,), COMPACT_THREADS, arguments), active


def _up(
    x: Tensor, values: Tensor, up_weight: Tensor, x1: Tensor, active: _Active, threshold: float, multiprocessors: int,
    compact: bool, is_score: bool = False,
) -> Launch:  # fmt: skip
    batch = x.shape[0]
    arguments = dict(
        x=x, values=values, up_weight=up_weight, x1=x1, **active, threshold=threshold, batch=batch,
        x_stride=x.stride(0), values_stride=values.stride(0), up_stride=up_weight.stride(0), x1_stride=x1.stride(0),
        IS_SCORE=is_score, COMPACT=compact, HIDDEN_SIZE=x.shape[1], BLOCK_BATCH=triton.next_power_of_2(batch),
        BLOCK_HIDDEN=UP_BLOCK_HIDDEN,
    )  # fmt: skip
    return Launch(up_kernel, (multiprocessors * UP_PROGRAMS_PER_MULTIPROCESSOR,), UP_THREADS, arguments)


def _down(
    x1: Tensor, down_weight_transposed: Tensor, output: Tensor, active: _Active, multiprocessors: int, compact: bool
) -> list[Launch]:
    batch, hidden_size = output.shape
    if hidden_size == 0:
        return []
    block_batch = triton.next_power_of_2(batch)
    column_blocks = triton.cdiv(hidden_size, DOWN_BLOCK_HIDDEN)
    splits = min(MAX_SPLITS, max(1, multiprocessors * DOWN_PROGRAMS_PER_MULTIPROCESSOR // column_blocks))
    partial = x1.new_empty(splits, batch, hidden_size, dtype=torch.float32)
    down = dict(
        x1=x1, down_weight_transposed=down_weight_transposed, partial=partial, **active, batch=batch,
        hidden_size=hidden_size, x1_stride=x1.stride(0), down_stride=down_weight_transposed.stride(0),
        COMPACT=compact, BLOCK_BATCH=block_batch, BLOCK_HIDDEN=DOWN_BLOCK_HIDDEN,
        BLOCK_NEURONS=max(DOWN_LEAST_BLOCK_NEURONS, DOWN_BLOCK_NEURONS // block_batch),
    )  # fmt: skip
    add = {
        "partial": partial, "output": output, "splits": splits, "size": batch * hidden_size,
        "BLOCK_SPLITS": triton.next_power_of_2(splits), "BLOCK": SPLITS_BLOCK,
    }  # fmt: skip
    return [
        Launch(down_kernel, (column_blocks, splits), DOWN_THREADS, down),
        Launch(add_splits_kernel, (triton.cdiv(batch * hidden_size, SPLITS_BLOCK),), SPLITS_THREADS, add),
    ]


def plan_up(
    x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, multiprocessors: int
) -> tuple[Tensor, list[Launch]]:
    """Return the empty output of ``sparse_up``, and the launches that compute it on this many multiprocessors."""
    interface.check_up(x, gate, up_weight, threshold)
    threshold = held(threshold, gate.dtype)  # so that a comparison in float32 equals one in that dtype
    x1 = x.new_empty(gate.shape)
    compact, active = _compact(gate, threshold, x1)
    return x1, [compact, _up(x, gate, up_weight, x1, active, threshold, multiprocessors, compact=False)]


def plan_down(x1: Tensor, down_weight_transposed: Tensor, multiprocessors: int) -> tuple[Tensor, list[Launch]]:
    """Plan ``sparse_down``, as :func:`plan_up` does ``sparse_up``."""
    interface.check_down(x1, down_weight_transposed)
    output = x1.new_empty(x1.shape[0], down_weight_transposed.shape[1])
    compact, active = _compact(x1, threshold=None)
    return output, [compact, *_down(x1, down_weight_transposed, output, active, multiprocessors, compact=False)]


def plan_ffn(
    x: Tensor, gate: Tensor, up_weight: Tensor, down_weight_transposed: Tensor, threshold: float, multiprocessors: int
) -> tuple[Tensor, list[Launch]]:
    """Plan ``sparse_ffn``, as :func:`plan_up` does ``sparse_up``; x1 stays in float32, in the order of the list."""
    interface.check_ffn(x, gate, up_weight, down_weight_transposed, threshold)
    threshold = held(threshold, gate.dtype)
    output = x.new_empty(x.shape[0], down_weight_transposed.shape[1])
    x1 = x.new_empty(gate.shape, dtype=torch.float32)
    compact, active = _compact(gate, threshold)
    up = _up(x, gate, up_weight, x1, active, threshold, multiprocessors, compact=True)
    return output, [compact, up, *_down(x1, down_weight_transposed, output, active, multiprocessors, compact=True)]


def plan_linear(
    x: Tensor, weight: Tensor, score: Tensor, threshold: float, multiprocessors: int
) -> tuple[Tensor, list[Launch]]:
    """Plan ``linear`` with a score, as :func:`plan_up` does ``sparse_up``."""
    interface.check_linear(x, weight, score, threshold)
    threshold = held(threshold, score.dtype)
    output = x.new_empty(score.shape)
    compact, active = _compact(score, threshold, output, is_score=True)
    up = _up(x, score, weight, output, active, threshold, multiprocessors, compact=False, is_score=True)
    return output, [compact, up]


def run(planned: tuple[Tensor, list[Launch]]) -> Tensor:
    """Launch a plan on the current stream of its tensors' device, and return its output."""
    output, launches = planned
    with torch.cuda.device_of(output):
        for launch in launches:
            launch.kernel[launch.grid](**launch.call(WARP_SIZE))
    return output


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def sparse_up(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float) -> Tensor:
    """:func:`reference.sparse_up` for CUDA tensors."""
    return run(plan_up(x, gate, up_weight, threshold, _multiprocessors(x.device)))


def sparse_down(x1: Tensor, down_weight_transposed: Tensor) -> Tensor:
    """:func:`reference.sparse_down` for CUDA tensors."""
    return run(plan_down(x1, down_weight_transposed, _multiprocessors(x1.device)))


def sparse_ffn(x: Tensor, gate: Tensor, up_weight: Tensor, down_weight_transposed: Tensor, threshold: float) -> Tensor:
    """:func:`reference.sparse_ffn` for CUDA tensors."""
    return run(plan_ffn(x, gate, up_weight, down_weight_transposed, threshold, _multiprocessors(x.device)))


def dense_ffn(x: Tensor, gate: Tensor, up_weight: Tensor, down_weight_transposed: Tensor, threshold: float) -> Tensor:
    """:func:`reference.dense_ffn` for CUDA tensors, with x1 rounded as :func:`gathered.dense_up` rounds it."""
    interface.check_ffn(x, gate, up_weight, down_weight_transposed, threshold)
    return gathered.dense_up(x, gate, up_weight, threshold) @ down_weight_transposed


def linear(x: Tensor, weight: Tensor, score: Tensor | None = None, threshold: float = 0.0) -> Tensor:
    """:func:`reference.linear` for CUDA tensors."""
    if score is None:
        interface.check_linear(x, weight, score, threshold)
        return nn.functional.linear(x, weight)
    return run(plan_linear(x, weight, score, threshold, _multiprocessors(x.device)))


for operator in (sparse_up, sparse_down, sparse_ffn, dense_ffn, linear):
    torch.library.impl(f"prosparse::{operator.__name__}", "CUDA", operator)
