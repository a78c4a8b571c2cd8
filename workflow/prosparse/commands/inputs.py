"""Checks a command's inputs and outputs before any work starts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PretrainedConfig

from prosparse.data import sources
from prosparse.experiment.data import FileSource
from prosparse.system.errors import ConfigError
from prosparse.system.identity import Identity, of_file
from prosparse.system.locking import IDENTITY, claim, locked


def text_files(patterns: list[str], option: str = "--text") -> list[Path]:
    """The files that an option names.

    Raises:
        ConfigError: a pattern matches no file, a file has another format or cannot be read, or all files are empty.
    """
    files = sources.files_of(FileSource(files=patterns), option)
    empty = []
    for file in files:
        try:
            with open(file, "rb") as content:
                if not content.read(1):
                    empty.append(file)
        except OSError as error:
            raise ConfigError(f"{option}: {file} cannot be read: {error.strerror}") from None
    if len(empty) == len(files):
        raise ConfigError(
            f"{option}: {files[0]} is empty" if len(files) == 1 else f"{option}: all {len(files)} are empty"
        )
    if empty:
        print(f"{option}: {len(empty)} of {len(files)} files are empty, for example {empty[0]}", flush=True)
    return files


def trained_on(checkpoint: str, files: list[Path]) -> list[Path]:
    """Return the files that ``prosparse train`` or ``sparsify`` made the checkpoint from.

    A stage's checkpoint and a control's are in a folder of the run's.
    """
    path = Path(checkpoint).absolute()
    records = (folder / IDENTITY for folder in (path, *path.parents[:2]))
    record = next((each for each in records if each.is_file()), None)
    if record is None:
        return []
    digests = set(json.loads(record.read_text(encoding="utf-8")).get("text", {}).values())
    return [file for file in files if of_file(file) in digests]


def check_context_length(config: PretrainedConfig, context_length: int) -> None:
    """Raise ConfigError if the model has fewer positions than ``context_length``."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and context_length > positions:
        raise ConfigError(
            f"the context length is {context_length}, but the model has positions for only {positions} tokens"
        )


def check_output_file(path: Path) -> None:
    """Raise ConfigError if a file of that name cannot be written."""
    if path.is_dir():
        raise ConfigError(f"--output: {path} is a directory: give the name of a file")
    _check_writable(path.absolute().parent)


@contextmanager
def output_folder(path: Path, identity: Identity) -> Iterator[None]:
    """Lock ``--output`` for one job; the folder must be new, empty, or hold the same job, finished or not.

    Raises:
        ConfigError: it is a file, or cannot be written.
        Refused: it holds another job or other files, or another process works there.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--output: {path} is a file: give the name of a folder")
    _check_writable(path.absolute())
    path.mkdir(parents=True, exist_ok=True)
    claim(path, identity)  # before writing anything into what may be someone else's folder
    with locked(path):
        yield


def _check_writable(directory: Path) -> None:
    existing = next(each for each in (directory, *directory.parents) if each.exists())
    if not existing.is_dir():
        raise ConfigError(f"--output: {existing} is a file, and a folder is needed there")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--output: {existing} cannot be written")
