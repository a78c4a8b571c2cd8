"""Open a model to decode: a checkpoint, rounded as asked, or a GGUF file as it is stored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from prosparse.experiment.activation import Activation
from prosparse.inference import gguf_model
from prosparse.inference.gguf_model import is_gguf
from prosparse.inference.sparse_ffn import Rounding
from prosparse.models import third_party
from prosparse.models.load import load
from prosparse.operators.quantized import FORMATS
from prosparse.system.errors import ConfigError


def open_tokenizer(checkpoint: str) -> PreTrainedTokenizerBase:
    """The tokenizer, after a check of the checkpoint, whose error explains best what is wrong with it."""
    if is_gguf(checkpoint):
        gguf_model.precision_of(Path(checkpoint))
        return gguf_model.tokenizer(Path(checkpoint))
    third_party.configuration(checkpoint)
    return third_party.tokenizer(checkpoint)


def precisions(checkpoint: str, wanted: list[str]) -> list[str]:
    """The precisions to decode in: those wanted, else bfloat16; a GGUF file's own.

    Raises:
        ConfigError: a GGUF file has another precision.
    """
    if not is_gguf(checkpoint):
        return wanted or ["bfloat16"]
    own = gguf_model.precision_of(Path(checkpoint))
    for precision in wanted:
        if precision != own:
            raise ConfigError(
                f"--precision {precision}: the matrices of {checkpoint} are in {own}, and a GGUF file is not converted"
            )
    return [own]


def open_model(checkpoint: str, activation: Activation | None, precision: str) -> tuple[Any, Rounding | None]:
    """The model, and how ``prepare`` rounds its matrices; prints what is rounded even in a GGUF file's model."""
    if is_gguf(checkpoint):
        found = gguf_model.open_gguf(Path(checkpoint), activation)
        for note in found.notes:
            print(note, file=sys.stderr)
        return found.model, found.rounding
    form = FORMATS.get(precision)
    dtype = torch.bfloat16 if form is not None else getattr(torch, precision)
    return load(checkpoint, activation, dtype=dtype), Rounding(form) if form is not None else None
