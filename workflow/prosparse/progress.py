"""The folder of a job that can be stopped and continued: one process at a time, one specification."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prosparse.config import Section, UserError
from prosparse.files import write_json


class Refused(UserError):
    """The job cannot start here; the message says why and what to do."""


@contextmanager
def locked(resume: Path) -> Iterator[None]:
    """Hold the folder while the block is open: one process of a job does.

    Raises:
        Refused: another process holds it.
    """
    with open(resume / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another process is training in {resume}: wait for it or stop it") from None
        yield


def claim(resume: Path, specification: Section) -> None:
    """Refuse to mix two configs' progress in one folder.

    Raises:
        Refused: the folder holds the progress of another specification; the message names what differs.
    """
    path, wanted = resume / "specification.json", specification.model_dump(mode="json")
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            changed = sorted(key for key in wanted if found.get(key) != wanted[key])
            raise Refused(
                f"{resume} holds the progress of another config ({', '.join(changed)} differ): "
                "restore that config to continue it, or delete the folder to start over"
            )
    else:
        write_json(path, wanted)


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block is open, instead of ending the process: time to save is left to it."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def write_through(directory: Path) -> None:
    """Return when the directory and its files are on the disk, not in the kernel's memory alone."""
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
