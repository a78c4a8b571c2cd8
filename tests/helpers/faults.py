"""A process that stops at its n-th change of the file system, as by ``kill -9``, and file systems that refuse.

Changes are seen through Python's audit events, and where compiled code writes (torch, safetensors), around its calls.
A file that is being written when the process stops is torn: it holds some bytes, and not those that were meant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers.modeling_utils

EVENTS = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink"}


class Killed(BaseException):
    """The process is gone: nothing it would do afterwards happens either."""


class _Watch:
    folder = ""  # changes elsewhere do not count
    stop_at = 0
    seen = 0
    active = False

    def change(self, tear: str | None) -> None:
        self.seen += 1
        if self.seen >= self.stop_at:  # also what is done on the way out
            if self.seen == self.stop_at and tear is not None and not os.path.isdir(tear):
                self.active = False
                with open(tear, "wb") as file:
                    file.write(b"torn")
                self.active = True
            raise Killed(self.seen)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_APPEND)
            if writes and isinstance(path, str | os.PathLike | bytes) and self._inside(path):
                self.change(
                    os.fsdecode(path) if flags & (os.O_CREAT | os.O_TRUNC) and not flags & os.O_APPEND else None
                )
        elif event in EVENTS and (self._inside(arguments[0]) or (event == "os.rename" and self._inside(arguments[1]))):
            self.change(None)

    def _inside(self, path: Any) -> bool:
        # a name relative to an open directory is rmtree's, which works in no other folder here
        return not isinstance(path, int) and (
            os.fsdecode(path).startswith(self.folder) or not os.path.isabs(os.fsdecode(path))
        )


_watch = _Watch()
_hooked = False


def _around(write: Callable[..., Any], position: int) -> Callable[..., Any]:
    def watched(*arguments: Any, **options: Any) -> Any:
        path = arguments[position] if len(arguments) > position else options.get("filename", options.get("f"))
        if _watch.active and isinstance(path, str | os.PathLike):
            _watch.change(os.fspath(path))
        return write(*arguments, **options)

    return watched


@contextmanager
def stopped_at(change: int, folder: Path) -> Iterator[_Watch]:
    """Raise ``Killed`` at the change of that number (from 1) to files below ``folder``, and at every later one."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_watch.audit)  # it cannot be removed
        _hooked = True
    _watch.folder, _watch.stop_at, _watch.seen = str(folder), change, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", _around(torch.save, 1))
        written = _around(safetensors.torch.save_file, 1)
        patch.setattr(safetensors.torch, "save_file", written)
        patch.setattr(transformers.modeling_utils, "safe_save_file", written)
        _watch.active = True
        try:
            yield _watch
        finally:
            _watch.active = False


def changes(work: Callable[[], Any], folder: Path) -> int:
    """How often ``work`` changes files below ``folder``."""
    with stopped_at(sys.maxsize, folder) as watch:
        work()
    return watch.seen
