"""The folder of a job that can be stopped and continued: one process at a time, one identity."""

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

#: What file systems without locks answer: NFS without its lock daemon, Lustre mounted without flock, some of FUSE.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Refused(UserError):
    """The job cannot start here; the message says why and what to do."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder while the block is open: one process of a job does.

    On a file system without locks that is said, and the job goes on: nothing then notices a second process.

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
            print(f"{folder}: no locks here ({error.strerror}); start no second process in it", file=sys.stderr)
        yield


def claim(folder: Path, identity: Identity) -> None:
    """Say once what the folder's progress is made from; refuse to mix it with anything else.

    Raises:
        Refused: the folder holds the progress of another identity, or of none; the message names what differs.
    """
    path = folder / "identity.json"
    held = _held(folder)
    if held and path.exists():
        agree(json.loads(path.read_text(encoding="utf-8")), identity, folder)
    elif held:
        names = ", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
        raise Refused(f"{folder} holds {names}, and not what it was made from: choose another folder, or empty it")
    else:
        write_json(path, identity)


def _held(folder: Path) -> list[str]:
    """Names of files, and folders with files in them, beside those of this module."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in ("lock", "identity.json", "identity.json.partial")
        and (not entry.is_dir() or any(path.is_file() for path in entry.rglob("*")))
    )


def agree(found: Identity, wanted: Identity, folder: Path) -> None:
    """Refuse what was made from anything but ``wanted``.

    Raises:
        Refused: the message names what differs.
    """
    different = list(differences(found, json.loads(json.dumps(wanted))))
    if different:
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise Refused(
            f"{folder} was made from something else ({'; '.join(different[:5])}{more}): "
            "make the call that began it, choose another folder, or delete this one"
        )


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
