"""The identity of a result: its inputs by content."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prosparse.system.provenance import digest

#: A JSON object; contents appear as SHA-256, 64 hex digits.
Identity = dict[str, Any]

#: In transformers' order of preference: it loads the first kind that a directory has.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")
TOKENIZER = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "*.model", "vocab.*", "merges.txt")

#: Seconds after which a file's times tell a later change: some file systems count whole seconds.
SETTLED = 2.0
_DIGESTS: dict[tuple[int, ...], str] = {}

#: Describes a directory of tokens, digests included.
MANIFEST = "manifest.json"


def of_file(path: Path) -> str:
    """SHA-256 of a file. A process reads a file once, unless it changes: weights take a second per gigabyte."""
    with open(path, "rb") as file:
        about = os.fstat(file.fileno())
        key = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
        if (known := _DIGESTS.get(key)) is not None:
            return known
        settled = time.time() - about.st_ctime > SETTLED
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if settled:
        _DIGESTS[key] = found
    return found


def of_texts(files: Iterable[Path]) -> dict[str, str]:
    """Digests of files by name, regardless of their folder; the order matters."""
    found: dict[str, str] = {}
    for number, path in enumerate(files):
        name = path.name if path.name not in found else f"{path.name} ({number})"
        found[name] = of_file(path)
    return found


def of_checkpoint(name: str | Path, revision: str | None = None, gguf_file: str | None = None) -> Identity:
    """Config and weight digests of a directory, or name and commit of a hub id."""
    directory = Path(name)
    if not directory.is_dir():
        from transformers import PretrainedConfig  # slow to import, and the Snakefile imports this module

        settings, _ = PretrainedConfig.get_config_dict(name, revision=revision, gguf_file=gguf_file)
        return {"hub": str(name), "commit": settings.get("_commit_hash"), "file": gguf_file}
    if gguf_file is not None:
        return {"weights": of_file(directory / gguf_file)}
    weights = next((found for pattern in WEIGHTS if (found := sorted(directory.glob(pattern)))), [])
    return {"config": of_file(directory / "config.json"), "weights": _of_files(weights)}


def of_tokenizer(name: str | Path) -> str:
    """Digest of a directory's tokenizer, or only the name of a hub id, since ``of_checkpoint`` has the commit."""
    directory = Path(name)
    if not directory.is_dir():
        return str(name)
    return _of_files(sorted({path for pattern in TOKENIZER for path in directory.glob(pattern)}))


def of_command(command: str, asked: Identity, checkpoint: str, texts: Iterable[Path]) -> Identity:
    """Identity of what a command makes from a checkpoint and text; ``asked`` holds its other arguments."""
    inputs = {"checkpoint": of_checkpoint(checkpoint), "tokenizer": of_tokenizer(checkpoint), "text": of_texts(texts)}
    return {"command": command, **asked, **inputs}


def of_rows(directory: Path) -> str:
    """Digest of rows saved by ``datasets``, whose files may lie elsewhere."""
    files = json.loads((directory / "state.json").read_text(encoding="utf-8"))["_data_files"]
    return hashlib.sha256("".join(of_file(directory / file["filename"]) for file in files).encode()).hexdigest()


def of_tokens(corpus: Path) -> str:
    """Digest of a corpus's train rows, from its manifest: reading terabytes again would take hours."""
    manifest = corpus / MANIFEST
    found = json.loads(manifest.read_text(encoding="utf-8")).get("sha256", {}) if manifest.exists() else {}
    return found.get("train") or of_rows(corpus / "train")


def _of_files(files: Iterable[Path]) -> str:
    return hashlib.sha256(digest({path.name: of_file(path) for path in files}).encode()).hexdigest()


def differences(found: Any, wanted: Any, key: str = "") -> Iterator[str]:
    """Dotted keys in which two JSON values differ, with both values unless they are contents."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in dict.fromkeys((*found, *wanted)):
            where = f"{key}.{name}" if key else str(name)
            if name not in wanted or name not in found:
                yield f"{where} is {'new' if name in wanted else 'gone'}"
            else:
                yield from differences(found[name], wanted[name], where)
        if found == wanted and [*found] != [*wanted]:
            yield f"{key} is in another order"
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for index, pair in enumerate(zip(found, wanted, strict=True)):
            yield from differences(*pair, f"{key}.{index}")
    elif found != wanted:
        contents = all(isinstance(value, str) and len(value) == 64 for value in (found, wanted))
        yield f"{key} has other content" if contents else f"{key} is {wanted!r:.60}, was {found!r:.60}"
