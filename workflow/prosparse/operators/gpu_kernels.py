"""The Triton kernels behind the operators on GPUs.

* compact: list the neurons that are active for any token of the batch, in ascending order, on the device;
* up: compute x1 of the listed neurons; each reads its row of W_1 once for the whole batch. ``linear`` with a score does
  the same without the gate as a factor;
* down: sum the listed neurons' rows of W_2^T, in splits of the list that write private float32 sums;
* add splits: add those sums in a fixed order. Nothing is atomic, so results are bitwise reproducible.

Weights may be NaN or infinite where a token's x1 is 0: ``tl.where`` drops the product, which multiplying by 0 would
not.
"""

from __future__ import annotations

import triton
import triton.language as tl


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
    IS_SCORE: tl.constexpr, RELU_UP: tl.constexpr, COMPACT: tl.constexpr, HIDDEN_SIZE: tl.constexpr,
    BLOCK_BATCH: tl.constexpr, BLOCK_HIDDEN: tl.constexpr,
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
        if RELU_UP:
            result = tl.where(result < 0, 0, result)
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
