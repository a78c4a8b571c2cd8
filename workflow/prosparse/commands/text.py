"""Packs a command's text into rows of tokens."""

from __future__ import annotations

import json
import re
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
#: Held-out sequences to measure, at most; as many as ``prosparse sparsity`` takes.
MOST_HELDOUT = 64

#: Of most tokenizers, at most.
CHARACTERS_PER_TOKEN = 6

#: Characters in which a document is cut between words; scripts without spaces have none.
NEARBY = 200


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

    A twentieth of the characters is held out, or as little as fills ``MOST_HELDOUT`` sequences, evenly spread over
    the text: short documents whole, and the ends of documents longer than a sequence.
    """
    sequence = CHARACTERS_PER_TOKEN * context_length
    total = sum(map(len, texts))
    share = min(1 / 20, MOST_HELDOUT * sequence / total) if total else 0.0
    owed, trained, held = 0.0, [], []
    for text in texts:
        owed += share * len(text)
        if not text or owed < min(sequence, len(text)):
            trained.append(text)
            continue
        cut = _at_white_space(text, len(text) - int(owed)) if owed < len(text) else 0
        owed -= len(text) - cut
        if cut:
            trained.append(text[:cut])
        held.append(text[cut:].lstrip())
    return trained, held


def _at_white_space(text: str, cut: int) -> int:
    """Return where the white space before ``cut`` begins; ``cut``, if there is none nearby."""
    nearby = max(0, cut - NEARBY)
    found = [match.start() for match in re.finditer(r"\s+", text[nearby:cut])]
    return nearby + found[-1] if found else cut


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
