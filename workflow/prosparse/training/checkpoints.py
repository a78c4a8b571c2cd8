"""A stage's checkpoints: which is complete, and how the last becomes the result.

A running stage has a ``resume`` folder with the Trainer's ``checkpoint-{step}`` directories, the ledger, and the file
``newest``, which names the checkpoint that is completely on disk. The result is linked or copied from it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import safe_open

from prosparse.experiment.layout import LEDGER, PROVENANCE
from prosparse.system.files import copy, link_or_copy, write_text, write_through

#: Optimizer state, needed to resume but not part of a model.
OPTIMIZATION = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state*.pth")

#: The large part of it: two AdamW moments per weight.
OPTIMIZER = "optimizer.pt"

#: Suffixes of the files to link. Others are copied, since someone may edit them.
LARGE = (".safetensors", ".pt")


def keep(checkpoint: Path) -> None:
    """Make a checkpoint the newest. Removes older ones only once it and the ledger are on disk."""
    resume = checkpoint.parent
    write_through(checkpoint)
    if (resume / LEDGER).exists():
        write_through(resume / LEDGER)
    write_text(resume / "newest", checkpoint.name)
    write_through(resume / "newest")
    newest(resume)


def newest(resume: Path) -> Path | None:
    """The last complete checkpoint; removes all others."""
    pointer = resume / "newest"
    whole = resume / pointer.read_text(encoding="utf-8") if pointer.exists() else None
    for checkpoint in resume.glob("checkpoint-*"):
        if checkpoint != whole:
            shutil.rmtree(checkpoint)
    return whole


def step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def install(checkpoint: Path, output: Path, excluding: tuple[str, ...] = ()) -> None:
    """Put a checkpoint's files into ``output``, replacing an older one's; the caller writes ``provenance.json``.

    Links files where the file system allows it: a checkpoint of the paper's models takes hundreds of gigabytes.
    """
    (output / PROVENANCE).unlink(missing_ok=True)  # from here on the directory is not a result
    for pattern in ("*.safetensors", "*.safetensors.index.json", *OPTIMIZATION):
        for stale in output.glob(pattern):
            stale.unlink()
    for path in sorted(checkpoint.iterdir()):
        # training_args.bin is a pickle that nothing here reads
        if path.is_file() and not any(path.match(pattern) for pattern in (*excluding, "training_args.bin")):
            put = link_or_copy if path.suffix in LARGE else copy
            put(path, output / path.name)


def copy_all(directory: Path, output: Path) -> None:
    """Copy a directory's files, e.g. a tokenizer's."""
    for path in sorted(directory.iterdir()):
        if path.is_file():
            copy(path, output / path.name)


def parameters(directory: Path) -> int:
    """Number of parameters in a checkpoint's files; tied weights are stored once and counted once."""
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
