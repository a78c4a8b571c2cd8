"""``prosparse sparsity``: measures activation sparsity and held-out loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prosparse.commands.inputs import check_context_length, text_files, trained_on
from prosparse.commands.text import packed, read_texts
from prosparse.data.tokens import predicted_bytes, spread
from prosparse.experiment.activation import Activation
from prosparse.experiment.training_free import Method
from prosparse.inference.rounded import round_weights
from prosparse.measure.sparsity import ActiveNeurons, measure
from prosparse.measure.training_free import calibration_rows, within_cost
from prosparse.method.activations import substitute
from prosparse.method.cutting import calibrate, cutting
from prosparse.method.thresholds import Place, thresholds
from prosparse.models.load import load_to_measure, own_activation
from prosparse.models.third_party import configuration
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.operators.quantized import FORMATS
from prosparse.paper.results.labels import untrained_label
from prosparse.system.errors import ConfigError

BAR = 40  # columns of a bar for 100%


@dataclass(frozen=True)
class TrainingFree:
    """Thresholds that need no training; without targets, the largest sparsity at 1% higher perplexity."""

    methods: list[Method]
    targets: list[float]
    calibration_text: list[str]


@dataclass(frozen=True)
class Measurement:
    """Attributes: ``precision``: q8_0 or q4_0 to round the weights as decoding does."""

    checkpoint: str
    text: list[str]
    activations: list[Activation]
    context_length: int
    sequences: int
    precision: str | None = None
    training_free: TrainingFree | None = None


def print_sparsity(wanted: Measurement) -> None:
    """Print the sparsity, also by layer, and the loss under each activation (default: the checkpoint's own).

    Under each activation, thresholds without training follow.
    """
    checkpoint, context_length = wanted.checkpoint, wanted.context_length
    texts = text_files(wanted.text)
    others = _calibration_files(wanted.training_free, texts) if wanted.training_free else []
    if known := trained_on(checkpoint, texts):
        print(
            f"warning: this is not a held-out loss: {checkpoint} was trained on {', '.join(map(str, known))}",
            flush=True,
        )
    check_context_length(configuration(checkpoint), context_length)
    text = spread(packed(read_texts(texts), checkpoint, context_length), wanted.sequences)
    rows = torch.tensor(text["input_ids"])
    calibration = None
    if others:
        drawn = spread(packed(read_texts(others), checkpoint, context_length), calibration_rows(context_length))
        calibration = torch.tensor(drawn["input_ids"])
    model = load_to_measure(checkpoint)
    if wanted.precision is not None:
        round_weights(model, FORMATS[wanted.precision])
    bytes_per_token = predicted_bytes(text, open_tokenizer(checkpoint)) / (len(rows) * (context_length - 1))
    for activation in wanted.activations or [own_activation(model.config)]:
        substitute(model, activation)
        _print(str(activation), measured(model, rows), bytes_per_token)
        for label, chosen in _settings(model, wanted.training_free, calibration):
            with cutting(model, chosen):
                _print(label, measured(model, rows, of_inputs=True), bytes_per_token)


def measured(model: PreTrainedModel, rows: Tensor, of_inputs: bool = False) -> dict[str, Any]:
    """Measure the rows, and each layer's share of dead neurons: those that no token activates."""
    neurons = ActiveNeurons(model)
    with neurons.noting():
        found = measure(model, rows, batch_size=1, of_inputs=of_inputs)
    return {**found, "dead_neurons": neurons.dead()}


def _calibration_files(training_free: TrainingFree, measured: list[Path]) -> list[Path]:
    files = text_files(training_free.calibration_text, "--calibration-text")
    if shared := {file.resolve() for file in files} & {file.resolve() for file in measured}:
        raise ConfigError(f"--calibration-text: {min(shared)} is in --text, too: thresholds must come from other text")
    return files


def _settings(
    model: PreTrainedModel, wanted: TrainingFree | None, rows: Tensor | None
) -> Iterator[tuple[str, list[dict[Place, float]]]]:
    """Yield each method's settings: what to call them, and their thresholds."""
    if wanted is None or rows is None:
        return
    layers = calibrate(model, rows)
    dense = 0.0 if wanted.targets else measure(model, rows, batch_size=1)["loss"]
    targets: list[float | None] = [*wanted.targets] or [None]
    for method in wanted.methods:
        for target in targets:
            sparsity = within_cost(model, rows, layers, method, dense) if target is None else target
            yield untrained_label(method, target), thresholds(layers, method, sparsity)


def _print(label: str, found: dict[str, Any], bytes_per_token: float) -> None:
    inputs = f", {100 * found['input_sparsity']:.2f}% in the FFN's input" if found.get("input_sparsity") else ""
    print(
        f"{label}: sparsity {100 * found['sparsity']:.2f}%{inputs} | loss {found['loss']:.4f} nats per token, "
        f"{found['loss'] / math.log(2) / bytes_per_token:.4f} bits per byte | {found['tokens']:,} tokens",
        *_bars(found["layer_sparsity"], found["dead_neurons"]),
        sep="\n",
        flush=True,
    )


def _bars(layers: list[float], dead: list[float]) -> list[str]:
    """Draw each layer's sparsity, the first layer above, and print its dead neurons behind the bar."""
    return [
        f"  layer {index:3}  {100 * share:5.1f}%  {_bar(share):{BAR}}  {100 * none:.1f}% dead"
        for index, (share, none) in enumerate(zip(layers, dead, strict=True))
    ]


def _bar(share: float) -> str:
    """Draw a share of 40 columns in steps of an eighth of one."""
    full, eighths = divmod(round(share * BAR * 8), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths].strip()
