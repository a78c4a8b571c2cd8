"""Overhead of the method's machinery against the same work without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prosparse.data.mixture import Mixture
from prosparse.experiment.specifications import StageSpecification
from prosparse.measure.quartiles import quartiles
from prosparse.measure.sparsity import measure
from prosparse.method.regularization import SparsityRegularization
from prosparse.system.allocator import keep_freed_memory
from prosparse.training.trainer import prepare

LEVER_REPEATS = 3
FEWEST_REPEATS, ENOUGH_SECONDS = 5, 60
LARGEST = 10**9  # parameters


def shorten(model: PreTrainedModel, parameters: int = LARGEST) -> tuple[int, int]:
    """Keep the leading layers that make up ``parameters``: layers cost the same, and a large model trains sharded.

    Returns:
        The number of layers left, at least one, and the original number.
    """
    layers = model.base_model.get_submodule("layers")
    assert isinstance(layers, nn.ModuleList)
    each = sum(parameter.numel() for parameter in layers[0].parameters())
    rest = sum(parameter.numel() for parameter in model.parameters()) - each * len(layers)
    kept = min(len(layers), max(1, (parameters - rest) // each))
    model.base_model.layers = layers[:kept]
    model.config.num_hidden_layers = kept
    return kept, len(layers)


def _seconds(arm: Callable[[], None]) -> float:
    started = time.perf_counter()
    arm()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def interleaved(arms: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each arm, run in turns so that a change in the machine's speed affects all alike.

    Stops after a minute, but not before five repeats, since a minute is short for a large model.
    """
    for arm in arms.values():
        _seconds(arm)  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    begun = time.perf_counter()
    for done in range(repeats):
        if done >= FEWEST_REPEATS and time.perf_counter() - begun > ENOUGH_SECONDS:
            break
        for name, arm in arms.items():
            seconds[name].append(_seconds(arm))
    return seconds


def rate(tokens: int, seconds: Sequence[float]) -> dict[str, float]:
    """Median tokens/s with its quartiles, and the number of repeats."""
    found = quartiles(seconds)
    return {
        "tokens_per_second": tokens / found["median"],
        "lower_quartile": tokens / found["upper_quartile"],
        "upper_quartile": tokens / found["lower_quartile"],
        "repeats": len(seconds),
    }


def slowdown(slower: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median of the paired ratios minus 1, in percent, with its quartiles."""
    found = quartiles([100 * (a / b - 1) for a, b in zip(slower, base, strict=True)])
    return {"percent": found.pop("median"), **found}


def training(model: PreTrainedModel, specification: StageSpecification, tokens: Path, repeats: int) -> dict[str, Any]:
    """Time a training step (forward, backward, clipping, AdamW) with and without the L1 gradient.

    The third arm also collects mean |x1| and sparsity, as a run does every ``log_every`` steps, and in every step of
    a stage with a target. The fourth is the limit: only the products of the step's linear layers. Before these arms,
    transformers' own step is timed, and that step with the run's optimizations added one by one.
    """
    settings = specification.training
    data = Mixture.load(tokens, specification.mixture, settings.micro_batch_size, specification.seed)
    batch = torch.stack([data[i]["input_ids"] for i in range(len(data))]).to(model.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    model.config.use_cache = False
    model.train()
    autocast = False

    def step() -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    levers = {}

    def measure_lever(name: str) -> None:
        levers[name] = rate(batch.numel(), interleaved({name: step}, LEVER_REPEATS)[name])

    measure_lever("transformers, float32")
    if settings.precision == "bfloat16":
        autocast = True
        measure_lever("bfloat16")
    keep_freed_memory()
    measure_lever("freed memory kept")
    prepare(model, settings.model_copy(update={"compile": False, "attention": "sdpa"}))
    measure_lever("fused loss")
    if settings.attention != "sdpa":
        model.set_attn_implementation(settings.attention)
        measure_lever(f"{settings.attention} attention")
    if settings.compile:
        prepare(model, settings)
        measure_lever("compiled layers")

    regularization = SparsityRegularization(model)

    def regularized_step(factor: float, measuring: bool) -> Callable[[], None]:
        def run() -> None:
            regularization.factor, regularization.measuring = factor, measuring
            step()
            if measuring:
                regularization.measured()

        return run

    last = specification.stages[-1]
    peak = 1.0 if last.steered else last.peak  # any lambda above 0 costs the same
    arms = {
        "plain": regularized_step(0, False),
        "regularized": regularized_step(peak, False),
        "regularized_and_measured": regularized_step(peak, True),
        "linear_layers": _linear_layers(model, batch.numel(), torch.bfloat16 if autocast else torch.float32),
    }
    seconds = interleaved(arms, repeats)
    regularization.detach()
    optimizer.zero_grad()
    cost = slowdown(seconds["regularized"], seconds["plain"])
    measured = slowdown(seconds["regularized_and_measured"], seconds["plain"])
    share = 1.0 if last.steered else 1 / settings.log_every
    limit = [part / whole for part, whole in zip(seconds["linear_layers"], seconds["plain"], strict=True)]
    return {
        "lambda": peak,
        "levers": levers,
        "threads": torch.get_num_threads(),
        "precision": settings.precision,
        "tokens_per_step": batch.numel(),
        "flop_per_token": 6 * sum(layer.weight.numel() for layer in _linears(model)),
        "share_of_matmul_rate": quartiles(limit),
        **{name: rate(batch.numel(), values) for name, values in seconds.items()},
        "slowdown_regularized": cost,
        "slowdown_measured_step": measured,
        "slowdown_of_run_percent": (1 - share) * cost["percent"] + share * measured["percent"],
    }


def _linears(model: PreTrainedModel) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def _linear_layers(model: PreTrainedModel, tokens: int, dtype: torch.dtype) -> Callable[[], None]:
    """Only the products of all linear layers, head included, forward and backward, on tensors of their shapes."""
    shapes: dict[tuple[int, int], int] = {}
    for layer in _linears(model):
        shape = (layer.out_features, layer.in_features)
        shapes[shape] = shapes.get(shape, 0) + 1
    tensors = {
        (out, into): tuple(
            torch.randn(size, device=model.device).to(dtype) for size in ((tokens, into), (out, into), (tokens, out))
        )
        for out, into in shapes
    }

    def run() -> None:
        for shape, number in shapes.items():
            x, weight, gradient = tensors[shape]
            for _ in range(number):
                x @ weight.T
                gradient @ weight
                gradient.T @ x

    return run


@torch.inference_mode()
def counting(model: PreTrainedModel, rows: torch.Tensor, repeats: int) -> dict[str, Any]:
    """Time the sparsity measurement against the same forward pass and loss without counting."""
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
