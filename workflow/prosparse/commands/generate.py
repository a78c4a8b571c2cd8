"""``prosparse generate``: prints text as it is decoded."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prosparse.experiment.activation import Activation
from prosparse.inference.decoding import cache, prepare
from prosparse.inference.predictors import load as load_predictors
from prosparse.inference.text import TextStream, encode, plain_generation
from prosparse.models.load import load
from prosparse.models.third_party import configuration
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system.errors import ConfigError


@dataclass(frozen=True)
class Generation:
    """What to generate, and how to decode it."""

    checkpoint: str
    prompt: str
    activation: Activation | None  # None: the checkpoint's own
    mode: str  # dense, exact or predicted; exact falls back to dense where no neuron is ever inactive
    predictors: Path | None
    decision_threshold: float
    new_tokens: int  # at most
    temperature: float  # 0: always the most likely token
    dtype: str


def generate_text(wanted: Generation) -> None:
    """Print the prompt and its continuation as they decode, exactly the text of all token ids; then the speed."""
    configuration(wanted.checkpoint)  # first, since it explains best why something is not a checkpoint
    tokenizer = open_tokenizer(wanted.checkpoint)
    model: Any = load(wanted.checkpoint, wanted.activation, dtype=getattr(torch, wanted.dtype))
    predictors = load_predictors(wanted.predictors) if wanted.predictors is not None else None
    decoder = prepare(model, predictors, wanted.decision_threshold)
    decoder.mode = wanted.mode if wanted.mode in decoder.modes or wanted.mode == "predicted" else "dense"
    inputs = torch.tensor([encode(tokenizer, wanted.prompt)])
    if not inputs.numel():
        raise ConfigError(
            f"the prompt {wanted.prompt!r} has no tokens, and {wanted.checkpoint} no token that begins a text"
        )
    started = time.perf_counter()
    clock = _FirstToken(tokenizer, partial(print, end="", flush=True))
    settings = plain_generation(model, tokenizer, wanted.temperature)
    settings.max_new_tokens = wanted.new_tokens
    generated = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=settings,
        past_key_values=cache(model),
        streamer=clock,
    )
    print()
    tokens, finished = generated.shape[1] - inputs.shape[1], time.perf_counter()
    speed = (tokens - 1) / (finished - clock.first) if tokens > 1 else math.nan
    print(
        f"{tokens} tokens, {decoder.mode}: {speed:.2f} tokens/s after the first, "
        f"which took {1000 * (clock.first - started):.0f} ms",
        file=sys.stderr,
    )


class _FirstToken(TextStream):
    """Writes the text and records the time of its first token."""

    first = math.nan
    _prompted = False

    def put(self, value: torch.Tensor) -> None:
        """The first call passes the prompt."""
        if self._prompted and math.isnan(self.first):
            self.first = time.perf_counter()
        self._prompted = True
        super().put(value)
