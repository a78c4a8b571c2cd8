"""The rate at which this machine reads memory, the limit of decoding and its operators."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import prosparse.operators  # noqa: F401  (registers read_memory)
from prosparse.system.errors import UserError

#: Ways to read: neighboring streams per thread, and bytes from what is read to what is prefetched.
STREAMS, AHEAD = (1, 2, 4, 8), (0, 512, 2048)
BYTES = 1 << 29  # far beyond any cache
ROUNDS = 7


@dataclass(frozen=True)
class Probe:
    """Memory, and the fastest way found to read it."""

    memory: Tensor
    streams: int
    ahead: int
    huge_pages: bool

    def rate(self) -> float:
        """Bytes per second at this moment: on a shared machine, the rate varies."""
        return _rate(self.memory, self.streams, self.ahead)


@functools.cache
def probe(size: int = BYTES, rounds: int = ROUNDS) -> Probe:
    """Read memory in every way in turn, with all of torch's threads, and keep the one of the best median.

    Raises:
        UserError: the native operators are missing.
    """
    if not hasattr(torch.ops.prosparse, "read_memory"):
        raise UserError("decoding can be timed only where the native operators can be built: see the warning above")
    ways = list(itertools.product((False, True), STREAMS, AHEAD))
    memories = {huge: _memory(size, huge) for huge in (False, True)}
    rates: dict[tuple[bool, int, int], list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for huge, streams, ahead in ways:
            rates[huge, streams, ahead].append(_rate(memories[huge], streams, ahead))
    huge, streams, ahead = max(ways, key=lambda way: statistics.median(rates[way]))
    return Probe(memories[huge], streams, ahead, huge)


def _rate(memory: Tensor, streams: int, ahead: int) -> float:
    started = time.perf_counter()
    torch.ops.prosparse.read_memory(memory, streams, ahead)
    return memory.nbytes / (time.perf_counter() - started)


def _memory(size: int, huge_pages: bool) -> Tensor:
    """Memory whose every page has been written, so that all of it is resident."""
    pages = mmap.mmap(-1, size)
    if huge_pages and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer((ctypes.c_char * size).from_buffer(pages), dtype=torch.int64)
    return memory.fill_(1)
