"""The folder of a resumable job: one process at a time, one identity."""

from __future__ import annotations

import errno
import fcntl
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prosparse.system.errors import UserError
from prosparse.system.files import write_json
from prosparse.system.identity import Identity, differences

#: What a folder's progress is made from; see :func:`claim`.
IDENTITY = "identity.json"
#: Errors of file systems without locks: NFS without its lock daemon, Lustre mounted without flock, some FUSE systems.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Refused(UserError):
    """The job cannot start here; the message says why and what to do."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock in the block; only one process of a job does.

    On a file system without locks, prints a warning and continues; nothing then detects a second process.

    Raises:
        Refused: another process holds it.
    """
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another process is training in {folder}: wait for it or stop it") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"{folder}: the file system has no locks ({error.strerror}); do not start another process in it",
                file=sys.stderr,
            )
        yield


def claim(folder: Path, identity: Identity) -> None:
    """Record once what the folder's progress is made from, and refuse to mix it with anything else.

    Raises:
        Refused: the folder holds progress of another identity or of none; the message names the differences.
    """
    path = folder / IDENTITY
    held = _held(folder)
    if held and path.exists():
        agree(json.loads(path.read_text(encoding="utf-8")), identity, folder)
    elif held:
        names = ", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
        raise Refused(f"{folder} holds {names}, but no record of its inputs: choose another folder, or empty it")
    else:
        write_json(path, identity)


def _held(folder: Path) -> list[str]:
    """Names of files and non-empty folders, except this module's own."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in ("lock", IDENTITY, f"{IDENTITY}.partial")
        and (not entry.is_dir() or any(path.is_file() for path in entry.rglob("*")))
    )


def agree(found: Identity, wanted: Identity, folder: Path) -> None:
    """Refuse anything not made from ``wanted``.

    Raises:
        Refused: the message names the differences.
    """
    different = list(differences(found, json.loads(json.dumps(wanted))))
    if different:
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise Refused(
            f"{folder} was made from different inputs ({'; '.join(different[:5])}{more}): "
            "repeat the original command, choose another folder, or delete this one"
        )


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs, instead of ending the process, to leave time for saving."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
