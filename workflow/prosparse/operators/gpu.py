"""The operators on NVIDIA and AMD GPUs; importing it registers them for CUDA tensors.

``dense_ffn``, and ``linear`` without a score, read every row and use torch's own products. The others are short lists
of launches of the kernels in ``gpu_kernels`` that never wait for the host, so that CUDA graphs can capture them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, nn

from prosparse.operators import gathered, interface
from prosparse.operators.gpu_kernels import add_splits_kernel, compact_kernel, down_kernel, up_kernel
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
    compact: bool, is_score: bool = False, relu_up: bool = False,
) -> Launch:  # fmt: skip
    batch = x.shape[0]
    arguments = dict(
        x=x, values=values, up_weight=up_weight, x1=x1, **active, threshold=threshold, batch=batch,
        x_stride=x.stride(0), values_stride=values.stride(0), up_stride=up_weight.stride(0), x1_stride=x1.stride(0),
        IS_SCORE=is_score, RELU_UP=relu_up, COMPACT=compact, HIDDEN_SIZE=x.shape[1],
        BLOCK_BATCH=triton.next_power_of_2(batch), BLOCK_HIDDEN=UP_BLOCK_HIDDEN,
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
    x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, multiprocessors: int, *, relu_up: bool = False
) -> tuple[Tensor, list[Launch]]:
    """Return the empty output of ``sparse_up``, and the launches that compute it on this many multiprocessors."""
    interface.check_up(x, gate, up_weight, threshold)
    threshold = held(threshold, gate.dtype)  # so that a comparison in float32 equals one in that dtype
    x1 = x.new_empty(gate.shape)
    compact, active = _compact(gate, threshold, x1)
    return x1, [compact, _up(x, gate, up_weight, x1, active, threshold, multiprocessors, False, relu_up=relu_up)]


def plan_down(x1: Tensor, down_weight_transposed: Tensor, multiprocessors: int) -> tuple[Tensor, list[Launch]]:
    """Plan ``sparse_down``, as :func:`plan_up` does ``sparse_up``."""
    interface.check_down(x1, down_weight_transposed)
    output = x1.new_empty(x1.shape[0], down_weight_transposed.shape[1])
    compact, active = _compact(x1, threshold=None)
    return output, [compact, *_down(x1, down_weight_transposed, output, active, multiprocessors, compact=False)]


def plan_ffn(
    x: Tensor, gate: Tensor, up_weight: Tensor, down_weight_transposed: Tensor, threshold: float, multiprocessors: int,
    *, relu_up: bool = False,
) -> tuple[Tensor, list[Launch]]:  # fmt: skip
    """Plan ``sparse_ffn``, as :func:`plan_up` does ``sparse_up``; x1 stays in float32.

    It is in the order of the list, but with ``relu_up`` at the neurons' own places: a second list leaves out those
    where it is 0.
    """
    interface.check_ffn(x, gate, up_weight, down_weight_transposed, threshold)
    threshold = held(threshold, gate.dtype)
    output = x.new_empty(x.shape[0], down_weight_transposed.shape[1])
    x1 = x.new_empty(gate.shape, dtype=torch.float32)
    compact, active = _compact(gate, threshold, x1 if relu_up else None)
    launches = [compact, _up(x, gate, up_weight, x1, active, threshold, multiprocessors, not relu_up, relu_up=relu_up)]
    if relu_up:
        compact, active = _compact(x1, threshold=None)
        launches.append(compact)
    launches += _down(x1, down_weight_transposed, output, active, multiprocessors, not relu_up)
    return output, launches


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


def sparse_up(x: Tensor, gate: Tensor, up_weight: Tensor, threshold: float, *, relu_up: bool = False) -> Tensor:
    """:func:`reference.sparse_up` for CUDA tensors."""
    return run(plan_up(x, gate, up_weight, threshold, _multiprocessors(x.device), relu_up=relu_up))


def sparse_down(x1: Tensor, down_weight_transposed: Tensor) -> Tensor:
    """:func:`reference.sparse_down` for CUDA tensors."""
    return run(plan_down(x1, down_weight_transposed, _multiprocessors(x1.device)))


def sparse_ffn(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    *,
    relu_up: bool = False,
) -> Tensor:
    """:func:`reference.sparse_ffn` for CUDA tensors."""
    multiprocessors = _multiprocessors(x.device)
    return run(plan_ffn(x, gate, up_weight, down_weight_transposed, threshold, multiprocessors, relu_up=relu_up))


def dense_ffn(
    x: Tensor,
    gate: Tensor,
    up_weight: Tensor,
    down_weight_transposed: Tensor,
    threshold: float,
    *,
    relu_up: bool = False,
) -> Tensor:
    """:func:`reference.dense_ffn` for CUDA tensors, with x1 rounded as :func:`gathered.dense_up` rounds it."""
    interface.check_ffn(x, gate, up_weight, down_weight_transposed, threshold)
    return gathered.dense_up(x, gate, up_weight, threshold, relu_up) @ down_weight_transposed


def linear(x: Tensor, weight: Tensor, score: Tensor | None = None, threshold: float = 0.0) -> Tensor:
    """:func:`reference.linear` for CUDA tensors."""
    if score is None:
        interface.check_linear(x, weight, score, threshold)
        return nn.functional.linear(x, weight)
    return run(plan_linear(x, weight, score, threshold, _multiprocessors(x.device)))


for operator in (sparse_up, sparse_down, sparse_ffn, dense_ffn, linear):
    torch.library.impl(f"prosparse::{operator.__name__}", "CUDA", operator)
