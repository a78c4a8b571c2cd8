"""Packs a command's text into rows of tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets

from prosparse.data import sources
from prosparse.data.candidates import clean
from prosparse.data.shards import replace_rows, rewriting
from prosparse.data.tokens import pack
from prosparse.experiment.data import Corpus, FileSource
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system import identity
from prosparse.system.errors import ConfigError
from prosparse.system.files import write_json

#: Sequences: fewer say nothing about an interval.
FEWEST_HELDOUT = 4


def read_texts(files: list[Path]) -> list[str]:
    """The files' documents, cleaned."""
    names = [str(file) for file in files]
    corpus = Corpus(stands_for="pile", kind="language_modelling", source=FileSource(files=names))
    return [clean(text, prose=False) for text in sources.read("text", corpus)]


def write_tokens(texts: Callable[[], list[str]], checkpoint: str, context_length: int, tokens: Path) -> int:
    """Write packed rows as corpus ``text`` of ``tokens``, unless already there; returns their number.

    Args:
        texts: called only for rows that are not there.
    """
    output = tokens / "text"
    if not (output / identity.MANIFEST).exists():
        with rewriting(output) as temporary:
            rows = packed(texts(), checkpoint, context_length)
            rows.save_to_disk(temporary / "train")
            content = identity.of_rows(temporary / "train")
            replace_rows(temporary, output, ["train"])
        write_json(output / identity.MANIFEST, {"train_sequences": len(rows), "sha256": {"train": content}})
    return json.loads((output / identity.MANIFEST).read_text(encoding="utf-8"))["train_sequences"]


def hold_out(texts: list[str], context_length: int) -> tuple[list[str], list[str]]:
    """Divide documents into those to train on and those to measure, the same for the same documents.

    A twentieth is held out, or as little as fills 64 sequences of six characters per token: evenly spaced documents,
    or, where these would be fewer than four, the end of each document.
    """
    characters = sum(map(len, texts))
    every = max(20, characters // (64 * 6 * context_length))
    if len(texts) >= 4 * every:
        return [text for index, text in enumerate(texts) if index % every], texts[::every]
    trained, held = [], []
    for text in texts:
        cut = text.rfind(" ", 0, len(text) - len(text) // every)  # between words, where there are any
        cut = cut if cut > 0 else len(text) - len(text) // every
        trained.append(text[:cut])
        held.append(text[cut:].strip())
    return trained, [text for text in held if text]


def packed(texts: list[str], checkpoint: str, context_length: int) -> datasets.Dataset:
    """Pack texts into rows of ``context_length`` tokens.

    Raises:
        ConfigError: they fill none.
    """
    rows = pack(datasets.Dataset.from_dict({"text": texts}), open_tokenizer(checkpoint), context_length)
    if not len(rows):
        raise ConfigError(
            f"the text fills no sequence of {context_length} tokens: give more text or a smaller context length"
        )
    return rows
