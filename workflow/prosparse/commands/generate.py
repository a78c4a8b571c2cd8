"""``prosparse generate``: prints text as it is decoded."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from prosparse.commands.opening import open_model, open_tokenizer, precisions
from prosparse.experiment.activation import Activation
from prosparse.inference.decoding import prepare
from prosparse.inference.generation import Text, continued
from prosparse.inference.predictors import load as load_predictors
from prosparse.inference.text import TextStream, encode, end_tokens
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
    precision: str | None  # of weights: a dtype, q8_0 or q4_0; None: bfloat16, or a GGUF file's own


def generate_text(wanted: Generation) -> None:
    """Print the prompt and its continuation as they decode, exactly the text of all token ids; then the speed."""
    tokenizer = open_tokenizer(wanted.checkpoint)
    (precision,) = precisions(wanted.checkpoint, [wanted.precision] if wanted.precision else [])
    model, rounding = open_model(wanted.checkpoint, wanted.activation, precision)
    predictors = load_predictors(wanted.predictors) if wanted.predictors is not None else None
    decoder = prepare(model, predictors, wanted.decision_threshold, rounding)
    decoder.mode = wanted.mode if wanted.mode in decoder.modes or wanted.mode == "predicted" else "dense"
    if decoder.native is None:
        print(
            f"each token runs through transformers' modules instead of one native call: {decoder.without_native}",
            file=sys.stderr,
        )
    prompt = encode(tokenizer, wanted.prompt)
    if not prompt:
        raise ConfigError(
            f"the prompt {wanted.prompt!r} has no tokens, and {wanted.checkpoint} has no beginning-of-text token"
        )
    stream = TextStream(tokenizer, partial(print, end="", flush=True))
    started = time.perf_counter()
    text, times = Text(decoder, len(prompt) + wanted.new_tokens), []
    stream.put(torch.tensor(prompt))
    for token in continued(text, prompt, wanted.new_tokens, wanted.temperature, end_tokens(model, tokenizer)):
        times.append(time.perf_counter())
        stream.put(torch.tensor([token]))
    stream.end()
    print()
    speed = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else math.nan
    print(
        f"{len(times)} tokens, {decoder.mode}, {precision}: {speed:.2f} tokens/s after the first, "
        f"which took {1000 * (times[0] - started):.0f} ms",
        file=sys.stderr,
    )
