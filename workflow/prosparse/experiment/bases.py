"""Checks of the models in local directories that runs start from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from prosparse.experiment.data import Tokenizer
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.model import PretrainedInit
from prosparse.system.errors import ConfigError
from prosparse.system.identity import of_file

#: Files of a pinned base, in the order of its digest.
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def digest(directory: Path) -> str:
    """Return the digest that ``init.sha256`` pins.

    The same as ``sha256sum config.json model.safetensors tokenizer.json tokenizer_config.json | sha256sum``.

    Raises:
        ConfigError: one of the files is missing.
    """
    lines = []
    for name in FILES:
        try:
            lines.append(f"{of_file(directory / name)}  {name}\n")
        except OSError as error:
            raise ConfigError(f"{directory / name}: {error.strerror}") from None
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verify(init: PretrainedInit) -> None:
    """Raise ConfigError if a base is pinned and its files are not the pinned ones."""
    if init.sha256 is not None and (found := digest(Path(init.pretrained))) != init.sha256:
        raise ConfigError(f"{init.pretrained} has sha256 {found}, expected {init.sha256}: its files were changed")


def check(experiment: Experiment) -> None:
    """Raise ConfigError, before any work, for an altered base, or one whose tokenizer differs from its run's."""
    for name, run in experiment.runs.items():
        if not isinstance(init := run.init, PretrainedInit) or init.gguf_file is not None:
            continue
        try:
            verify(init)
        except ConfigError as error:
            raise ConfigError(f"runs.{name}.init: {error}") from None
        _check_tokenizer(name, init.pretrained, experiment.tokenizer(name), experiment.data.tokenizers)


def _check_tokenizer(run: str, base: str, name: str, tokenizers: dict[str, Tokenizer]) -> None:
    key, tokenizer = f"data.tokenizers.{name}", tokenizers[name]
    own = _content(base)
    if own is None or tokenizer.gguf_file is not None:
        return
    if tokenizer.pretrained is None:
        raise ConfigError(
            f"runs.{run}.init: {base} has a tokenizer of its own, but {key} is trained on the corpora; "
            f"set {key} to {{pretrained: {base}}}"
        )
    if (other := _content(tokenizer.pretrained)) is not None and other != own:
        raise ConfigError(
            f"runs.{run}.init: the tokenizer of {base} is not {key}, that of {tokenizer.pretrained}, and token ids "
            "differ between tokenizers"
        )


def _content(directory: str) -> dict[str, Any] | None:
    """Return what decides a tokenizer's ids; None if the directory is not here yet or holds it in another form."""
    try:
        held = json.loads(Path(directory, "tokenizer.json").read_text(encoding="utf-8"))
        return {key: held[key] for key in ("model", "added_tokens")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
