"""The recipe that ``prosparse sparsify`` chooses for a model, a text and a machine"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import Any

import torch

from prosparse.experiment.activation import Activation
from prosparse.experiment.recipe import OwnRecipe
from prosparse.experiment.training import Stage, Training
from prosparse.system import devices
from prosparse.system.errors import ConfigError

#: Fewer steps steer nothing: sparsity follows lambda with a lag of tens of steps.
FEWEST_STEPS = 20
#: Steps to have at least, as far as the text allows, before a step gets a second sequence.
WANTED_STEPS = 400
LARGEST_BATCH = 128
#: Learning rates by parameters: ours for SmolLM2-135M, and the paper's for LLaMA2-7B.
RATES = (135e6, 1e-3), (7e9, 3e-5)
#: FLOPs of a run from which compiling the layers, a matter of minutes on a CPU, is made up for.
WORTH_COMPILING = 2e14
#: Tokens per forward pass on a GPU and on a CPU.
FORWARD_TOKENS = {True: 8192, False: 2048}


@dataclass(frozen=True)
class Settings:
    """What a user may decide; None: by the rules of this module."""

    target_sparsity: float
    tokens: int | None
    context_length: int
    learning_rate: float | None
    batch_size: int | None
    seed: int


def recipe(wanted: Settings, activation: Activation, parameters: int, rows: int) -> OwnRecipe:
    """Return our best recipe: one stage from the first step on, lambda steered to the target, linear decay.

    Args:
        activation: of the sparse model.
        parameters: of the model.
        rows: sequences of training text; at most one epoch of them is trained on.

    Raises:
        ConfigError: they are too few.
    """
    length = wanted.context_length
    used = rows if wanted.tokens is None else min(rows, wanted.tokens // length)
    batch = wanted.batch_size or min(max(1, used // WANTED_STEPS), LARGEST_BATCH)
    steps = used // batch
    if steps < FEWEST_STEPS:
        raise ConfigError(
            f"{used:,} training sequences of {length} tokens make {steps} steps of {batch}, but at least "
            f"{FEWEST_STEPS} steps are needed: give more text, more --tokens, or a smaller --context-length or "
            "--batch-size"
        )
    on_gpu = torch.accelerator.is_available()
    together = max(1, FORWARD_TOKENS[on_gpu] // length)
    training = Training(
        learning_rate=wanted.learning_rate or learning_rate(parameters),
        schedule="linear",
        warmup_steps=steps // 20,
        batch_size=batch,
        micro_batch_size=max(each for each in range(1, batch + 1) if batch % each == 0 and each <= together),
        log_every=max(1, steps // 40),
        checkpoint_every=max(10, steps // 10),
        **_arithmetic(6 * parameters * used * length, length, on_gpu),
    )
    stages = [Stage(until=steps, target_sparsity=wanted.target_sparsity)]
    return OwnRecipe(activation=activation, stages=stages, training=training, context_length=length)


def learning_rate(parameters: int) -> float:
    """Interpolate ``RATES`` on logarithmic axes, to two digits; constant outside."""
    (small, high), (large, low) = RATES
    share = math.log(parameters / small) / math.log(large / small)
    return float(f"{high * (low / high) ** min(max(share, 0.0), 1.0):.1e}")


def _arithmetic(flops: float, context_length: int, on_gpu: bool) -> dict[str, Any]:
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return {
        "precision": "bfloat16" if devices.fast_in_bfloat16() else "float32",
        "compile": compiler and flops > WORTH_COMPILING,
        # on a CPU, eager attention has the faster backward pass, but holds context_length² scores per head
        "attention": "sdpa" if on_gpu or context_length > 512 else "eager",
    }
