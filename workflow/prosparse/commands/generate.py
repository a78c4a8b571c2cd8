"""``prosparse generate``: prints text as it is decoded."""

from __future__ import annotations

import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prosparse.experiment.activation import Activation
from prosparse.inference.decoding import cache, prepare
from prosparse.inference.predictors import load as load_predictors
from prosparse.inference.text import TextStream, encode, plain_generation
from prosparse.models.load import load
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system.errors import ConfigError


def generate_text(
    checkpoint: str,
    activation: Activation | None,
    prompt: str,
    mode: str,
    predictors: Path | None,
    decision_threshold: float,
    new_tokens: int,
    temperature: float,
    dtype: str,
) -> None:
    """Print the prompt and its continuation as they decode, exactly the text of all token ids; then the speed."""
    tokenizer = open_tokenizer(checkpoint)
    model: Any = load(checkpoint, activation, dtype=getattr(torch, dtype))
    decoder = prepare(model, load_predictors(predictors) if predictors is not None else None, decision_threshold)
    decoder.mode = mode if mode in decoder.modes or mode == "predicted" else "dense"
    inputs = torch.tensor([encode(tokenizer, prompt)])
    if not inputs.numel():
        raise ConfigError(f"the prompt {prompt!r} has no tokens, and {checkpoint} no token that begins a text")
    started = time.perf_counter()
    clock = _FirstToken(tokenizer, partial(print, end="", flush=True))
    settings = plain_generation(model, tokenizer, temperature)
    settings.max_new_tokens = new_tokens
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
