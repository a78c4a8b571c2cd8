"""Files and directories that a reader sees as they were or whole, never half written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def write_text(path: str | Path, text: str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # or a failing machine leaves the new name without the text
    os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_through(path: Path) -> None:
    """Return when a file, or a directory and its files, are on the disk and not only in the kernel's memory."""
    for each in (*path.iterdir(), path) if path.is_dir() else (path,):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    temporary = target.with_name(target.name + ".partial")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file under a second name: a hard link, or a copy on a file system that has none."""
    temporary = target.with_name(target.name + ".partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # which error says so differs between file systems; a full disk fails the copy too
        copy(source, target)
        return
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename(2) keeps both names where they are already one file


def discard(directory: Path) -> None:
    """Remove a directory; until the last moment it is whole, and then it is gone."""
    leaving = directory.with_name(f".{directory.name}.leaving")
    if leaving.exists():  # an earlier call was stopped
        shutil.rmtree(leaving)
    if directory.exists():
        os.rename(directory, leaving)
        shutil.rmtree(leaving)


def replace_directory(source: Path, target: Path) -> None:
    """Put a finished directory in place of an older one."""
    discard(target)
    os.replace(source, target)
