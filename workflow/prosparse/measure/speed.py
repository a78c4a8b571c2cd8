"""What the method's machinery costs, measured against the same work without it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prosparse.data.mixture import Mixture
from prosparse.measure.sparsity import measure
from prosparse.method.regularization import SparsityRegularization
from prosparse.runs import StageSpecification


def interleaved(arms: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each arm, run in turns so that a change of the machine's speed meets all alike."""
    for arm in arms.values():
        arm()  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def rate(tokens: int, seconds: Sequence[float]) -> dict[str, float]:
    """Median tokens/s with its quartiles, and the number of repeats."""
    lower, median, upper = statistics.quantiles(seconds, n=4)
    return {
        "tokens_per_second": tokens / median,
        "lower_quartile": tokens / upper,
        "upper_quartile": tokens / lower,
        "repeats": len(seconds),
    }


def slowdown(slower: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median of the paired ratios minus 1, in percent, with its quartiles."""
    ratios = [100 * (a / b - 1) for a, b in zip(slower, base, strict=True)]
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return {"percent": median, "lower_quartile": lower, "upper_quartile": upper}


def training(model: PreTrainedModel, specification: StageSpecification, tokens: Path, repeats: int) -> dict[str, Any]:
    """A training step (forward, backward, clipping, AdamW) with and without the L1 gradient.

    The third arm also collects mean |x1| and sparsity, which a run does every ``log_every`` steps.
    """
    settings = specification.training
    data = Mixture.load(tokens, specification.mixture, settings.micro_batch_size, specification.seed)
    batch = torch.stack([data[i]["input_ids"] for i in range(len(data))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    regularization = SparsityRegularization(model)
    model.train()

    def step(factor: float, measuring: bool) -> Callable[[], None]:
        def run() -> None:
            regularization.factor, regularization.measuring = factor, measuring
            model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()
            if measuring:
                regularization.measured()

        return run

    peak = specification.stages[-1].peak
    arms = {"plain": step(0, False), "regularized": step(peak, False), "regularized_and_measured": step(peak, True)}
    seconds = interleaved(arms, repeats)
    regularization.detach()
    optimizer.zero_grad()
    cost = slowdown(seconds["regularized"], seconds["plain"])
    measured = slowdown(seconds["regularized_and_measured"], seconds["plain"])
    share = 1 / settings.log_every
    return {
        "lambda": peak,
        **{name: rate(batch.numel(), values) for name, values in seconds.items()},
        "slowdown_regularized": cost,
        "slowdown_measured_step": measured,
        "slowdown_of_a_run_percent": (1 - share) * cost["percent"] + share * measured["percent"],
    }


@torch.inference_mode()
def counting(model: PreTrainedModel, rows: torch.Tensor, repeats: int) -> dict[str, Any]:
    """The sparsity measurement against the same forward pass and loss without counting."""
    model.eval()

    def plain() -> None:
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
        nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="sum").item()

    def count() -> None:
        measure(model, rows, len(rows))

    seconds = interleaved({"plain": plain, "counting": count}, repeats)
    return {
        **{name: rate(rows.numel(), values) for name, values in seconds.items()},
        "slowdown": slowdown(seconds["counting"], seconds["plain"]),
    }
