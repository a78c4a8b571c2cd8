"""How the C library hands out memory to a job that computes with large tensors."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process use freed tensors' memory again instead of returning it to the kernel.

    glibc maps every tensor beyond 32 MB anew and the kernel clears its pages, which costs a training
    step of a small model on a CPU two fifths of its time. Nothing happens where the C library is another.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
