"""Atomic writes: readers see the old file or the complete new one."""

from __future__ import annotations

import json
import os
import re
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
        os.fsync(file.fileno())  # else a crash may leave the new name without its content
    os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    """Write one value per line, but a list of numbers on one."""
    text = json.dumps(value, indent=1)
    # a line break is never inside a JSON string
    text = re.sub(r"\[\n[-+.,eE\d\s]+\]", lambda numbers: f"[{' '.join(numbers[0][1:-1].split())}]", text)
    write_text(path, text + "\n")


def write_through(path: Path) -> None:
    """Flush a file, or a directory and its files, from the kernel's memory to disk."""
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
    """Give a file a second name: a hard link, or a copy if the file system has no links."""
    temporary = target.with_name(target.name + ".partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # file systems differ in the error for "no links"; a full disk fails the copy too
        copy(source, target)
        return
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # rename(2) keeps both names if they are already the same file


def discard(directory: Path) -> None:
    """Remove a directory atomically: it is complete until it is gone."""
    leaving = directory.with_name(f".{directory.name}.leaving")
    if leaving.exists():  # an earlier call was interrupted
        shutil.rmtree(leaving)
    if directory.exists():
        os.rename(directory, leaving)
        shutil.rmtree(leaving)


def replace_directory(source: Path, target: Path) -> None:
    """Replace an older directory by a finished one."""
    discard(target)
    os.replace(source, target)
