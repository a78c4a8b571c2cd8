"""The processes of one training job, started by torchrun or srun.

A single-process job runs the same code, without communication or waiting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from prosparse.method.regularization import SparsityRegularization
from prosparse.system.errors import UserError

T = TypeVar("T")

#: How long the other processes wait, at most, while the first loads a model or writes a checkpoint.
PATIENCE = timedelta(hours=1)


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def is_first() -> bool:
    """Whether this process owns the job's lock, files and messages."""
    return rank() == 0


def join() -> None:
    """Join the job's process group: NCCL between GPUs, gloo for tensors in host memory."""
    if count() == 1 or dist.is_initialized():
        return
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", 0)))
    if is_first() and "TORCHELASTIC_RUN_ID" not in os.environ:
        # explains the silence if the other processes were never started
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        print(
            f"waiting for {count() - 1} other processes at {where} (WORLD_SIZE={count()})", file=sys.stderr, flush=True
        )
    backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def together() -> Iterator[None]:
    """Raise an error from any process's block in all processes, so that none waits forever."""
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    if count() > 1:
        said = error if isinstance(error, UserError) else error and UserError(f"process {rank()} failed: {error!r}")
        found: list[UserError | None] = [None] * count()
        dist.all_gather_object(found, said)
        if error is None or isinstance(error, UserError):
            error = next((each for each in found if each is not None), None)
    if error is not None:
        raise error


def from_first(make: Callable[[], T]) -> T:
    """Call ``make`` in the first process and return its result in all; its errors are raised in all."""
    made: list[T | None] = [None]
    with together():
        if is_first():
            made[0] = make()
    if count() > 1:
        dist.broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]


def any_of(wish: bool) -> bool:
    """Whether ``wish`` holds in at least one process."""
    if count() == 1:
        return wish
    wishes = torch.tensor(int(wish))
    dist.all_reduce(wishes, dist.ReduceOp.MAX)
    return bool(wishes)


def measured(regularization: SparsityRegularization) -> tuple[float, float]:
    """The step's L1 (mean |x1|, summed over layers) and sparsity, over its micro-batches and the processes."""
    l1, sparsity = regularization.measured()
    total, share = mean([sum(l1), sum(sparsity) / len(sparsity)])
    return total, share


def mean(values: Sequence[float]) -> list[float]:
    """Mean of each value over the processes."""
    if count() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / count()).tolist()
