"""A process that stops at its n-th change of the file system, as by ``kill -9``, and file systems that refuse.

Changes are seen through Python's audit events, and where compiled code writes (torch, safetensors), around its calls.
A file that is being written when the process stops is torn: it holds some bytes, and not those that were meant.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
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


def contents(directory: Path) -> dict[str, str]:
    """Each file's hash, without times, steps per second and what a library writes of its own process."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.name in ("provenance.json", "manifest.json", "training.json"):
            content = _timeless(json.loads(content))
        elif path.name == "ledger.csv":
            rows = list(csv.DictReader(content.decode().splitlines()))
            content = json.dumps([{**row, "tokens_per_second": None} for row in rows]).encode()
        elif path.name in ("trainer_state.json", "state.json", "training_args.bin"):
            continue  # the Trainer's clock; a fingerprint; the folder's name
        found[str(path.relative_to(directory))] = hashlib.sha256(content).hexdigest()
    return found


def _timeless(record: dict) -> bytes:
    record.pop("provenance", None)
    record.pop("seconds", None)
    return json.dumps(record).encode()


def assert_any_stop_is_mended(
    folder: Path, start: Path | None, work: Callable[[Path], Any], wanted: dict[str, str], count: int
) -> None:
    """Stop ``work(output)`` at each of its ``count`` changes and call it again: it leaves what is ``wanted``.

    Args:
        folder: holds the outputs.
        start: a folder of which each output begins as a copy.
    """
    for change in range(1, count + 1):
        output = folder / str(change)
        if start is not None:
            shutil.copytree(start, output)
        with pytest.raises(Killed), stopped_at(change, folder):
            work(output)
        work(output)
        assert contents(output) == wanted, change
        shutil.rmtree(output)


def kill_once(condition: Callable[[], bool], work: Callable[[], Any]) -> None:
    """``kill -9`` a process that does ``work()`` as soon as the condition holds, which is while it is at work."""

    def at_leisure() -> None:
        os.nice(10)  # so that it is still at work when this process looks
        work()

    process = multiprocessing.get_context("fork").Process(target=at_leisure)  # everything is imported already
    process.start()
    deadline = time.time() + 120
    while time.time() < deadline and process.is_alive() and not condition():
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL  # neither finished nor failed
