"""Split a corpus into shards, and join finished shards of tokens into one corpus."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prosparse.system import identity
from prosparse.system.errors import ConfigError
from prosparse.system.files import discard, replace_directory, write_json


def share(total: int, shard: int, shards: int) -> range:
    """Return a shard's part of ``range(total)``; the shards' parts, in order, make up the whole range."""
    return range(total * shard // shards, total * (shard + 1) // shards)


def join(shards: list[Path], output: Path) -> dict[str, Any]:
    """Join shards of packed tokens into one corpus, in order, without copying rows.

    Writes the shards' splits into ``output``, which refer to the shards' files and which ``datasets.load_from_disk``
    memory-maps, then ``output/manifest.json``. Returns the manifest.

    Args:
        shards: directories written by :func:`prosparse.data.tokens.tokenize`; they must not move.

    Raises:
        ConfigError: the shards come from different commits of a data set.
    """
    manifests = [json.loads((shard / identity.MANIFEST).read_text(encoding="utf-8")) for shard in shards]
    commit, splits = _common_commit(manifests), list(manifests[0]["sha256"])
    with rewriting(output) as temporary:
        for split in splits:
            _refer([shard / split for shard in shards], temporary / split, output / split)
        replace_rows(temporary, output, splits)
    measured = [split for split in splits if split != "train"]
    summed = ["tokens", *(f"{split}_sequences" for split in splits), *(f"{split}_bytes" for split in measured)]
    sums = {key: sum(manifest[key] for manifest in manifests) for key in summed}
    context_length = manifests[0]["context_length"]
    manifest = {
        "corpus": manifests[0]["corpus"],
        "commit": commit,
        "shards": len(shards),
        "context_length": context_length,
        **sums,
        **{
            f"{split}_bytes_per_token": sums[f"{split}_bytes"] / (sums[f"{split}_sequences"] * (context_length - 1))
            for split in measured
        },
        "sha256": {split: _content(manifests, output, split) for split in splits},
    }
    write_json(output / identity.MANIFEST, manifest)
    return manifest


@contextmanager
def rewriting(output: Path) -> Iterator[Path]:
    """Provide a temporary folder inside ``output`` for the rows that :func:`replace_rows` will put in place."""
    temporary = output / ".partial"
    discard(temporary)  # left by an interrupted call
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        discard(temporary)


def replace_rows(temporary: Path, output: Path, splits: Iterable[str]) -> None:
    """Replace ``splits`` in ``output`` with their new rows in ``temporary``.

    The manifest is removed first, and the caller writes it last, so a mix of two calls' rows never passes for a corpus.
    """
    (output / identity.MANIFEST).unlink(missing_ok=True)
    for split in splits:
        replace_directory(temporary / split, output / split)


def _common_commit(manifests: list[dict[str, Any]]) -> str | None:
    """Return the shards' commit; raise ConfigError if they differ: rows could be missing or duplicated."""
    found: dict[str | None, list[str]] = {}
    for shard, manifest in enumerate(manifests):
        found.setdefault(manifest.get("commit"), []).append(str(shard))
    if len(found) == 1:
        return next(iter(found))
    corpus = manifests[0]["corpus"]
    parts = "; ".join(f"{commit or 'unknown'}: shards {', '.join(shards)}" for commit, shards in found.items())
    most = max(filter(None, found), key=lambda commit: len(found[commit]))
    raise ConfigError(
        f"corpus {corpus}: its shards come from different commits of the data set, so rows may be missing or "
        f"duplicated ({parts}): set data.corpora.{corpus}.source.revision to {most} and run again, "
        "which rereads all its shards"
    )


def _content(manifests: list[dict[str, Any]], output: Path, split: str) -> str:
    """Combine the sha256 of the shards' rows from their manifests, or hash the rows if a manifest lacks it."""
    contents = [manifest.get("sha256", {}).get(split) for manifest in manifests]
    if None in contents:
        return identity.of_rows(output / split)
    return hashlib.sha256("".join(contents).encode()).hexdigest()


def _refer(parts: list[Path], written: Path, final: Path) -> None:
    """Write into ``written`` the two JSON files of a ``datasets`` directory at ``final`` that refers to ``parts``."""
    written.mkdir()
    states = [json.loads((part / "state.json").read_text(encoding="utf-8")) for part in parts]
    files = [
        {"filename": os.path.relpath(part / file["filename"], final)}
        for part, state in zip(parts, states, strict=True)
        for file in state["_data_files"]
    ]
    fingerprints = " ".join(state["_fingerprint"] for state in states)
    fingerprint = hashlib.sha256(fingerprints.encode()).hexdigest()[:16]
    (written / "state.json").write_text(
        json.dumps({**states[0], "_data_files": files, "_fingerprint": fingerprint}), encoding="utf-8"
    )
    shutil.copyfile(parts[0] / "dataset_info.json", written / "dataset_info.json")
