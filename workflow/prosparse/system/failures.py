"""Explains errors from files, libraries and the machine in one line each."""

from __future__ import annotations

import errno
import json
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

from pydantic import ValidationError

from prosparse.system.errors import UserError
from prosparse.system.problems import describe

#: Packages that raise their own exceptions when the network or the hub fails.
NETWORK = ("httpx", "httpcore", "requests", "urllib3", "huggingface_hub")
#: Messages of RuntimeErrors for which torch has no class.
OUT_OF_MEMORY = ("not enough memory", "out of memory", "Cannot allocate memory")
DAMAGED = ("PytorchStreamReader failed", "Invalid magic number")
NOT_WRITTEN = ("PytorchStreamWriter failed", "unexpected pos")
#: Modules that only an extra installs, and how to get them.
EXTRAS = {
    "lm_eval": "lm-eval: pip install 'prosparse[workflow]'",
    "altair": "altair: pip install 'prosparse[workflow]'",
}

MACHINE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOLCK: "the file system provides no locks; use a local one, or mount it with locks",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n`",
}


def in_one_line(error: BaseException) -> str:
    """An exception's message on one line, or its class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def explain(error: BaseException) -> str | None:
    """One line about an error the user can act on; None for a bug in this program."""
    package, said = type(error).__module__.partition(".")[0], in_one_line(error)
    missing = (getattr(error, "name", None) or "").partition(".")[0]  # of an ImportError
    match error:
        case UserError():
            return str(error)
        case ValidationError():
            return "; ".join(describe(error).splitlines())
        case MemoryError():
            return f"out of memory: {said}"
        case RuntimeError() if any(words in said for words in OUT_OF_MEMORY):
            return f"out of memory: {said.partition(' (')[0]}"
        case ModuleNotFoundError() if missing in EXTRAS:
            return f"this command needs {EXTRAS[missing]}"
        case ModuleNotFoundError() if missing and missing != "prosparse":
            return f"the Python package {error.name} is needed but not installed"
        case _ if package in NETWORK or (isinstance(error, ConnectionError) and not isinstance(error, BrokenPipeError)):
            return f"the network or the hub failed: {said}"
        case OSError():
            return _of_the_system(error)
        case UnicodeDecodeError():
            return f"not {error.encoding.upper()} text: {error.reason} at byte {error.start}"
        case json.JSONDecodeError():
            return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        case pickle.UnpicklingError() | zipfile.BadZipFile() | tarfile.TarError() | zlib.error() | EOFError():
            return f"a file is damaged or in the wrong format: {said}"
        case RuntimeError() if any(words in said for words in DAMAGED):
            return f"a file is damaged or in the wrong format: {said}"
        case RuntimeError() if any(words in said for words in NOT_WRITTEN):
            return f"a file could not be written, perhaps because the disk is full: {said}"
    # the tokenizers library raises plain Exceptions
    if type(error) is Exception or package in ("yaml", "pyarrow", "safetensors_rust", "safetensors", "gguf"):
        return f"a file is damaged or in the wrong format: {said}"
    return None


def _of_the_system(error: OSError) -> str:
    reason = MACHINE.get(error.errno or 0) or error.strerror or in_one_line(error)
    return f"{error.filename}: {reason}" if error.filename is not None else reason


# ------------------------------------------------------------------- the files of a checkpoint

JSON_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "model.safetensors.index.json", "pytorch_model.bin.index.json",
)  # fmt: skip
BINARY_FILES = ("*.safetensors", "*.bin", "tokenizer.model", "*.gguf")
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("tokenizer_class", "model_type"), (str,)),
    **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), (str, dict)),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), (int, list)),
    "model_max_length": (int, float),
}  # types of values that libraries use unchecked
POINTER = b"version https://git-lfs.github.com/spec/"


def damaged(directory: Path) -> str | None:
    """What is wrong with a local checkpoint, naming the file; libraries name no file, or open it too late."""
    for path in (directory / name for name in JSON_FILES):
        if path.is_file() and (found := _of_bytes(path) or _of_json(path)):
            return found
    for path in sorted(path for pattern in BINARY_FILES for path in directory.glob(pattern)):
        if path.is_file() and (found := _of_bytes(path)):
            return found
        if path.suffix == ".safetensors" and (found := of_safetensors(path)):
            return found
    return None


def _of_bytes(path: Path) -> str | None:
    with open(path, "rb") as file:
        first = file.read(len(POINTER))
    if not first:
        return f"{path} is empty"
    if first == POINTER:
        return f"{path} is a Git LFS pointer, not the file it stands for: run `git lfs pull` in its repository"
    return None


def _of_json(path: Path) -> str | None:
    try:
        held = json.loads(path.read_bytes())
    except RecursionError:
        return f"{path} is nested too deeply"
    except ValueError as error:  # invalid JSON or UTF-8
        return f"{path}: {explain(error)}"
    if not isinstance(held, dict):
        return f"{path} is not a JSON object"
    for token in (held.get("added_tokens") or []) if path.name == "tokenizer.json" else []:
        if not isinstance(token, dict) or not isinstance(token.get("special", False), bool):
            return f"{path}: added_tokens holds {token!r}"
    for key in TYPES.keys() & held.keys():
        value = held[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, TYPES[key])):
            return f"{path}: {key} is {value!r}: {' or '.join(each.__name__ for each in TYPES[key])} is needed"
    if path.name.endswith(".index.json"):
        shards = held.get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            return f"{path} has no weight_map from weights to files"
        missing = sorted({shard for shard in shards.values() if not (path.parent / shard).is_file()})
        if missing:
            more = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
            return f"{path} names {missing[0]}, which does not exist{more}"
    return None


def of_safetensors(path: Path) -> str | None:
    """What is wrong with the header or the length of a safetensors file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"{path} is truncated, or not a safetensors file: {size:,} bytes"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            wanted = 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"{path} is not a safetensors file: its header is invalid"
    if size != wanted:
        return f"{path} is truncated or damaged: {size:,} bytes, and its header says {wanted:,}"
    return None
