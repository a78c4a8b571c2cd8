"""Tunes the C library's allocator for jobs that compute with large tensors."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Reuse the memory of freed tensors instead of returning it to the kernel.

    glibc maps every tensor over 32 MB afresh and the kernel clears its pages, which takes two fifths of a small model's
    training step on a CPU. No-op with other C libraries.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
