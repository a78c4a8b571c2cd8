"""The checkpoints of a stage: which of them is whole, and how the last becomes the stage's result.

A stage at work has ``resume``: ``checkpoint-{step}`` directories as the Trainer writes them, the ledger, and the file
``newest``, which names the checkpoint that is whole and on the disk. A result is linked or copied out of it.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from safetensors import safe_open

from prosparse.system.files import copy, link_or_copy, write_text, write_through

#: What continues an optimizer, and is no part of a model.
OPTIMIZATION = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state*.pth")

#: Suffixes of files that are linked; the others stay files of their own, which someone may edit.
LARGE = (".safetensors", ".pt")


def keep(checkpoint: Path) -> None:
    """Make a checkpoint the newest; older ones are removed only when it is on the disk, with the ledger."""
    resume = checkpoint.parent
    write_through(checkpoint)
    if (resume / "ledger.csv").exists():
        write_through(resume / "ledger.csv")
    write_text(resume / "newest", checkpoint.name)
    write_through(resume / "newest")
    newest(resume)


def newest(resume: Path) -> Path | None:
    """The last whole checkpoint; all others are removed."""
    pointer = resume / "newest"
    whole = resume / pointer.read_text(encoding="utf-8") if pointer.exists() else None
    for checkpoint in resume.glob("checkpoint-*"):
        if checkpoint != whole:
            shutil.rmtree(checkpoint)
    return whole


def step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def publish(checkpoint: Path, output: Path, excluding: tuple[str, ...] = ()) -> None:
    """Put a checkpoint's files into ``output``, in place of an older one's; ``provenance.json`` is the caller's.

    Links, where the file system has them: a checkpoint of the paper's models is hundreds of gigabytes.
    """
    (output / "provenance.json").unlink(missing_ok=True)  # from here on the directory is no result
    for pattern in ("*.safetensors", "*.safetensors.index.json", *OPTIMIZATION):
        for stale in output.glob(pattern):
            stale.unlink()
    for path in sorted(checkpoint.iterdir()):
        # training_args.bin is a pickle that nothing here reads
        if path.is_file() and not any(path.match(pattern) for pattern in (*excluding, "training_args.bin")):
            put = link_or_copy if path.suffix in LARGE else copy
            put(path, output / path.name)


def copy_all(directory: Path, output: Path) -> None:
    """Copy a directory's files, a tokenizer's say."""
    for path in sorted(directory.iterdir()):
        if path.is_file():
            copy(path, output / path.name)


def parameters(directory: Path) -> int:
    """Parameters in a checkpoint's files; tied weights are written once and counted once."""
    total = 0
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  # no mapping
        for shape in shapes:
            count = 1
            for size in shape:
                count *= size
            total += count
    return total


def read_ledger(path: Path, until: int) -> list[dict[str, str]]:
    """Rows of steps up to ``until``; a row that was being written when the process stopped is left out."""
    if not path.exists():
        return []
    text = path.read_bytes().decode()
    whole = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(whole.splitlines()) if int(row["step"]) <= until]


def write_ledger(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    lines = [",".join(columns), *(",".join(row[column] for column in columns) for row in rows)]
    write_text(path, "\r\n".join(lines) + "\r\n")


def join_ledgers(parts: list[Path], output: Path) -> None:
    """One ledger of a run from those of its stages."""
    texts = [part.read_bytes().decode() for part in parts]
    write_text(output, texts[0] + "".join(text.partition("\n")[2] for text in texts[1:]))
