"""Save a checkpoint with another activation: the same files, except for its config."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import snapshot_download

from prosparse.experiment.activation import Activation
from prosparse.experiment.layout import LEDGER, PROVENANCE
from prosparse.models.load import load
from prosparse.models.third_party import configuration, save_tokenizer, tokenizer
from prosparse.system.errors import ConfigError
from prosparse.system.files import replace_directory
from prosparse.system.locking import IDENTITY

#: Weights in formats other than the one loaded, which would keep the old activation's name.
OTHER_FORMATS = ["*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "*.ot"]
#: Files that a training stage writes about its own checkpoint.
OF_A_STAGE = [LEDGER, PROVENANCE, IDENTITY, "lock"]


def substitute(checkpoint: str, activation: Activation, output: Path) -> None:
    """Write ``checkpoint`` with another activation to the folder ``output``, atomically.

    Safetensors files are copied byte for byte, with their dtypes and shards, and so are the other files (generation
    config, chat template, license). Pickled weights become safetensors of the same dtype.

    Raises:
        ConfigError: ``output`` exists and is not an empty folder, or ``checkpoint`` cannot be loaded.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"{output} exists already: substitute writes a new folder")
    configuration(checkpoint)  # first, since it explains best why something is not a checkpoint
    opened = tokenizer(checkpoint)
    model = load(checkpoint, activation, dtype="auto")
    folder = Path(checkpoint)
    if not folder.is_dir():
        folder = Path(snapshot_download(checkpoint, ignore_patterns=OTHER_FORMATS))
    staging = output.with_name(output.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in [*OTHER_FORMATS, *OF_A_STAGE, "config.json"]):
            shutil.copy2(path, staging)
    if any(staging.glob("*.safetensors")):
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(staging)
    else:
        model.save_pretrained(staging)
    save_tokenizer(opened, staging)
    replace_directory(staging, output)
